"""One application of the contract under a real server, and one test's dealings with it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlencode

import asyncpg
import httpx
import websockets

from tests.contract.apps import tables
from tests.support.pgbouncer import PgBouncer
from tests.support.relay import Relay
from tests.support.server import AsgiServer, RawRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

    from tests.support.cluster import PostgresCluster
    from tests.support.postgres import PostgresServer

Adapter = Literal["litestar", "starlette", "fastapi"]
Mode = Literal["manual", "autocommit"]
Backend = Literal["postgresql", "sqlite"]

ADAPTERS: tuple[Adapter, ...] = ("litestar", "starlette", "fastapi")
MODES: tuple[Mode, ...] = ("manual", "autocommit")

#: Seconds within which everything must have come to rest.
PATIENCE = 5.0
#: What the garbage collector and the interpreter say about things that nobody ended.
LEFT_BEHIND = (
    "garbage collector",
    "was never awaited",
    "Task was destroyed",
    "ResourceWarning",
    "never retrieved",
)


def through() -> str:
    """What stands between the applications and PostgreSQL in this run.

    Nothing, "pgbouncer", or "replica": read sessions use a standby.
    """
    return os.environ.get("CONTRACT_THROUGH", "")


class Kind(NamedTuple):
    """Which application."""

    adapter: Adapter
    mode: Mode
    backend: Backend = "postgresql"

    def __str__(self) -> str:
        return "-".join(self)

    def server(self, url: str, *, pool: str = "2 1 1.5", read_url: str | None = None) -> AsgiServer:
        """A process that serves it; not started yet."""
        replica = {"CONTRACT_READ_URL": read_url} if read_url else {}
        return AsgiServer(
            f"tests.contract.apps.{self.adapter}_app:app",
            env={
                "CONTRACT_URL": url,
                "CONTRACT_COMMIT": self.mode,
                "CONTRACT_POOL": pool,
                **replica,
            },
            options=("--no-access-log", "--log-level", "warning"),
        )


def client_of(server: AsgiServer, **settings: Any) -> httpx.AsyncClient:
    """A client of a server."""
    transport = httpx.AsyncHTTPTransport(
        verify=False,
        # uvicorn closes the connection after a 500, which races with the next request on it.
        limits=httpx.Limits(max_keepalive_connections=0),
    )
    return httpx.AsyncClient(base_url=server.url, transport=transport, timeout=15, **settings)


class World:
    """A PostgreSQL server of this process, perhaps a PgBouncer or a standby, and a relay."""

    def __init__(self, postgres: PostgresServer, cluster: PostgresCluster | None = None) -> None:
        self.postgres = postgres
        self.cluster = cluster
        self.direct_url = postgres.create_database("contract")
        postgres.psql(tables.POSTGRESQL, "contract")
        self.bouncer: PgBouncer | None = None
        if through() == "pgbouncer":
            self.bouncer = PgBouncer(
                postgres.folder.with_name(f"{postgres.folder.name}-pgbouncer"),
                self.direct_url,
                pool_size=20,
                tracking=bool(os.environ.get("CONTRACT_TRACKING")),
            )
            self.bouncer.start()
        self._before_url = self.bouncer.url if self.bouncer else self.direct_url
        self.relay = Relay.to(self._before_url)

    @property
    def url(self) -> str:
        """The database behind the relay."""
        return self.relay.url(self._before_url)

    @property
    def read_url(self) -> str | None:
        """The standby, when there is one; not behind the relay."""
        return self.cluster.standbys[0].url("contract") if self.cluster else None

    def repair(self) -> None:
        """End every fault."""
        if self.postgres.running:
            self.postgres.thaw()
        self.postgres.start()
        self.relay.restore()

    def close(self) -> None:
        """End what stands before the server."""
        if self.bouncer:
            self.bouncer.kill()


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


class Stack:
    """A running application and its database."""

    def __init__(self, kind: Kind, server: AsgiServer, database: World | Path) -> None:
        self.kind = kind
        self.server = server
        self.database = database

    async def rows(self, key: str) -> list[str]:
        """What is stored of one test's notes, without the key that they begin with."""
        if isinstance(self.database, World):
            async with self._admin() as admin:
                found = await admin.fetch("SELECT key FROM notes WHERE starts_with(key, $1)", key)
                keys = [row["key"] for row in found]
        else:
            with closing(sqlite3.connect(self.database)) as admin:
                query = "SELECT key FROM notes WHERE key LIKE ? || '%'"
                keys = [row[0] for row in admin.execute(query, (key,))]
        return sorted(found.removeprefix(key).strip() for found in keys)

    async def open_transactions(self) -> list[str]:
        """Sessions that hold a transaction open and do nothing."""
        if isinstance(self.database, World):
            async with self._admin() as admin:
                return [
                    f"{row['state']}: {row['query']}"
                    for row in await admin.fetch(
                        "SELECT state, query FROM pg_stat_activity"
                        " WHERE state LIKE 'idle in transaction%'"
                    )
                ]
        with closing(sqlite3.connect(self.database, timeout=0)) as admin:
            try:
                admin.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return [str(error)]
            return []

    async def queries(self, pattern: str) -> list[str]:
        """Statements that run now."""
        async with self._admin() as admin:
            found = await admin.fetch(
                "SELECT query FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1"
                " AND pid <> pg_backend_pid()",
                pattern,
            )
            return [row["query"] for row in found]

    async def execute(self, statement: str) -> None:
        """Do something as another client of the server."""
        async with self._admin() as admin:
            await admin.execute(statement)

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        assert isinstance(self.database, World)
        admin = await asyncpg.connect(self.database.direct_url, timeout=5, command_timeout=5)
        try:
            yield admin
        finally:
            await admin.close()


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
