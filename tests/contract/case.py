"""One test's requests to a running application, and the proof that the contract was kept."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
import websockets

from tests.contract.stack import LEFT_BEHIND, Stack
from tests.contract.world import World
from tests.support.server import AsgiServer, RawRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

#: Seconds within which everything must have come to rest.
PATIENCE = 5.0


def client_of(server: AsgiServer, **settings: Any) -> httpx.AsyncClient:
    """A client of a server."""
    transport = httpx.AsyncHTTPTransport(
        verify=False,
        # uvicorn closes the connection after a 500, which races with the next request on it.
        limits=httpx.Limits(max_keepalive_connections=0),
    )
    return httpx.AsyncClient(base_url=server.url, transport=transport, timeout=15, **settings)


@dataclass
class Seen:
    """What a client saw of an answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    complete: bool = True

    @property
    def data(self) -> Any:
        return json.loads(self.body)


class Case:
    """One test's dealings with a stack: requests, and the proof that the contract was kept.

    All notes of a test begin with its `key`, which nobody may see in the log.
    """

    def __init__(self, stack: Stack, http: httpx.AsyncClient) -> None:
        self.stack = stack
        self.kind = stack.kind
        self.http = http
        self.key = f"SECRET{secrets.token_hex(6)}"
        self._log_before = len(stack.server.log)

    @property
    def autocommit(self) -> bool:
        return self.kind.mode == "autocommit"

    @property
    def log(self) -> str:
        """What the server process has written since the test began."""
        return self.stack.server.log[self._log_before :]

    def path(self, path: str, *, key: str | None = None, **params: object) -> str:
        """The path with its parameters, `key` among them."""
        return f"{path}?{urlencode({'key': key or self.key, **params})}"

    async def post(self, path: str, *, key: str | None = None, **params: object) -> Seen:
        """Send a request of a page of another origin, as a browser does."""
        answer = await self.http.post(
            self.path(path, key=key, **params), headers={"Origin": "http://elsewhere"}
        )
        return Seen(answer.status_code, dict(answer.headers), answer.text)

    async def get(self, path: str, *, key: str | None = None, **params: object) -> Seen:
        """Get a page, whatever becomes of its body."""
        async with self.http.stream("GET", self.path(path, key=key, **params)) as answer:
            seen = Seen(answer.status_code, dict(answer.headers))
            try:
                async for piece in answer.aiter_text():
                    seen.body += piece
            except httpx.RemoteProtocolError:
                seen.complete = False
        return seen

    def raw(
        self, method: str, path: str, *, key: str | None = None, **params: object
    ) -> RawRequest:
        """A request that can be left in the middle."""
        return RawRequest(self.stack.server.port, method, self.path(path, key=key, **params))

    def socket(self, path: str, *, key: str | None = None, **params: object) -> websockets.connect:
        """A WebSocket."""
        uri = f"ws://127.0.0.1:{self.stack.server.port}{self.path(path, key=key, **params)}"
        return websockets.connect(uri, close_timeout=2)

    async def probe(self) -> dict[str, int]:
        """What the application's pool holds."""
        found: dict[str, int] = (await self.http.get("/probe")).json()
        return found

    async def until(self, holds: Callable[[], Awaitable[Any]], what: str) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + PATIENCE
        while not await holds():
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
            await asyncio.sleep(0.02)

    async def until_held(self, connections: int) -> None:
        """Wait until so many connections are in use."""

        async def held() -> bool:
            return (await self.probe())["checked_out"] == connections

        await self.until(held, f"{connections} connections in use")

    async def until_stored(self, *stored: str) -> None:
        """Wait for what is stored after the client had its answer."""

        async def found() -> bool:
            return await self.stack.rows(self.key) == sorted(stored)

        await self.until(found, f"stored: {stored}")

    async def until_logged(self, text: str) -> None:
        """Wait for what is logged after the client had its answer."""

        async def found() -> bool:
            return text in self.log

        await self.until(found, f"logged: {text}")

    async def until_replicated(self) -> None:
        """Where there is a standby, wait until it has all rows and is what read sessions use."""
        cluster = self.stack.database.cluster if isinstance(self.stack.database, World) else None
        if cluster is None:
            return
        cluster.catch_up()
        used = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%FROM notes%'"
        mine = " AND pid <> pg_backend_pid()"

        async def read() -> bool:
            await self.post("/read/count")
            return cluster.standbys[0].psql(used + mine) != "0"

        await self.until(read, "reads from the standby")

    async def until_running(self, pattern: str) -> None:
        """Wait until the server works on such a statement."""
        await self.until(lambda: self.stack.queries(pattern), f"a running {pattern!r}")

    async def proves(
        self,
        seen: Seen | None,
        *,
        status: int | None = None,
        stored: Iterable[str] = (),
        logged: str | None = None,
    ) -> None:
        """Assert what every row of the contract promises.

        Args:
            seen: What the client saw; None when it left before.
            status: What it should have seen.
            stored: The notes that the table should hold, without the key they begin with.
            logged: A text that the log should hold exactly once.
        """
        if seen is not None:
            assert seen.status == status, (seen, self.log)
            assert self.key not in seen.body
            retry_after = seen.headers.get("retry-after")
            assert (retry_after == "1") == (status == 503), seen
        await self.rests()
        assert await self.stack.rows(self.key) == sorted(stored)
        log = self.log
        assert self.key not in log
        assert not [text for text in LEFT_BEHIND if text in log], log
        if logged is not None:
            assert log.count(logged) == 1, log

    async def rests(self) -> None:
        """Assert that every connection and every transaction is over, without a collection."""
        probe = await self.probe()
        assert not probe["collecting"]
        await self.until_held(0)

        async def none_open() -> bool:
            return not await self.stack.open_transactions()

        await self.until(none_open, "no open transaction")

    async def works(self) -> None:
        """Assert that the application serves, within its patience."""

        async def stored() -> bool:
            return (await self.post("/do/count")).status == 200

        await self.until(stored, "the application serves")
