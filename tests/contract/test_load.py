"""Under load, while the server is restarted twice, no answer lies and nothing is lost.

`REVIEWPOINT_LOAD_SECONDS=60` makes it longer. The other modes are in tests/scale/test_load.py.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11
import httpx
import pytest
from websockets.exceptions import InvalidStatus, WebSocketException

from tests.contract.case import Case, client_of
from tests.contract.stack import LEFT_BEHIND, Kind, Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.contract.world import World

CLIENTS = 32


@dataclass
class Ledger:
    """What the clients were told of each of their notes."""

    stored: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unexpected: list[str] = field(default_factory=list)


class Client:
    """One of the clients."""

    def __init__(self, case: Case, ledger: Ledger, numbers: itertools.count[int]) -> None:
        self.case = case
        self.ledger = ledger
        self.numbers = numbers

    async def run(self, until: float) -> None:
        """Send one request after the other."""
        acts: list[Callable[[str], Coroutine[None, None, None]]] = [
            self._post("/do/store"),
            self._post("/do/store"),
            self._post("/do/isolated"),
            self._post("/do/orphan"),
            self._post("/do/add-only", status=404),
            self._post("/do/crash"),
            self._post("/do/query-slowly", seconds=0.02),
            self._post("/read/count"),
            self._stream,
            self._leave,
            self._socket,
        ]
        while time.monotonic() < until:
            await random.choice(acts)(f"{self.case.key} {next(self.numbers)}")

    def _post(self, path: str, **params: object) -> Callable[[str], Coroutine[None, None, None]]:
        stores = path in {"/do/store", "/do/isolated", "/do/query-slowly"}

        async def act(key: str) -> None:
            try:
                seen = await self.case.post(path, key=key, **params)
            except httpx.HTTPError:
                self.ledger.unknown.add(key)
                return
            if seen.status < 400:
                (self.ledger.stored if stores else self.ledger.refused).add(key)
            elif "may have been stored" in seen.body:
                self.ledger.unknown.add(key)
            else:
                self.ledger.refused.add(key)
                expected = {"/do/orphan": 409, "/do/add-only": 404, "/do/crash": 500}.get(path)
                if seen.status not in {expected, 503}:
                    self.ledger.unexpected.append(f"{path}: {seen}")

        return act

    async def _stream(self, key: str) -> None:
        try:
            async with self.case.raw("GET", "/stream/whole", key=key) as request:
                await request.head()
                await request.body()
        except (h11.ProtocolError, OSError, AssertionError):
            # Cut short, which says that something failed; the COMMIT may be what did.
            self.ledger.unknown.update(f"{key} {n}" for n in range(5))
        else:
            self.ledger.stored.update(f"{key} {n}" for n in range(5))

    async def _leave(self, key: str) -> None:
        self.ledger.unknown.add(key)
        async with self.case.raw("POST", "/do/query-slowly", key=key, seconds=0.05) as request:
            await asyncio.sleep(random.random() / 20)
            await request.abort()

    async def _socket(self, key: str) -> None:
        # A close that never arrived tells nothing, so all of these may be stored.
        self.ledger.unknown.add(key)
        try:
            async with self.case.socket("/ws/close", key=key) as socket:
                await socket.recv()
                if random.random() < 0.5:
                    socket.transport.abort()
                else:
                    await socket.wait_closed()
        except (WebSocketException, InvalidStatus, OSError):
            return


LOADS = {
    Kind("litestar", "autocommit"): 20.0,
    Kind("starlette", "manual"): 8.0,
    Kind("fastapi", "autocommit"): 8.0,
}


@pytest.mark.parametrize(("kind", "seconds"), LOADS.items(), ids=map(str, LOADS))
async def test_under_load_and_restarts_no_answer_lies(
    kind: Kind, seconds: float, world: World
) -> None:
    await no_answer_lies(kind, seconds, world)


async def no_answer_lies(kind: Kind, seconds: float, world: World) -> None:
    """Let all clients act for a while, restart the server twice, and compare what they were told."""
    seconds = float(os.environ.get("REVIEWPOINT_LOAD_SECONDS", seconds))
    ledger, numbers = Ledger(), itertools.count()
    with kind.server(world.direct_url, pool="5 5 10") as server:
        async with client_of(server) as http:
            case = Case(Stack(kind, server, world), http)
            until = time.monotonic() + seconds
            clients = [
                asyncio.create_task(Client(case, ledger, numbers).run(until))
                for _ in range(CLIENTS)
            ]
            for _ in range(2):
                await asyncio.sleep(seconds / 3)
                await asyncio.to_thread(world.postgres.restart, "immediate")
            await asyncio.gather(*clients)
            await case.works()
            await case.rests()
            found = {f"{case.key} {row}" for row in await case.stack.rows(case.key)}
        server.stop()
        log = server.log
    assert not ledger.unexpected[:5], log[-3000:]
    assert len(ledger.stored) > CLIENTS
    assert not ledger.stored - found, "a 2xx without its row"
    assert not found - ledger.stored - ledger.unknown, "a row that nobody was told of"
    assert not [text for text in LEFT_BEHIND if text in log]
