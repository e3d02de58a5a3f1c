"""Clients that write through an application, and remember what they were told."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from tests.contract.case import client_of
from tests.contract.stack import Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.server import AsgiServer

APPLICATION = Kind("starlette", "autocommit")


@dataclass
class Writers:
    """What was answered, in monotonic seconds; the application is the contract's."""

    server: AsgiServer
    stored: dict[str, float] = field(default_factory=dict)
    refused: int = 0
    unexpected: list[str] = field(default_factory=list)
    running: bool = True
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def write(self, http: httpx.AsyncClient) -> None:
        """Write one row after the other; wait as long as a 503 says."""
        while self.running:
            key = f"row {next(self._numbers)}"
            try:
                answer = await http.post("/do/store", params={"key": key})
            except httpx.HTTPError as error:
                self.unexpected.append(repr(error))
                continue
            if answer.status_code == 200:
                self.stored[key] = time.monotonic()
            elif answer.status_code == 503 and "retry-after" in answer.headers:
                self.refused += 1
                await asyncio.sleep(0.1)
            elif "may have been stored" not in answer.text:
                self.unexpected.append(f"{answer.status_code} {answer.text}")

    async def go_on_after(self, moment: float, *, within: float) -> float:
        """Return how many seconds after a moment the next twenty rows were stored."""
        deadline = time.monotonic() + within
        while True:
            later = sorted(at for at in self.stored.values() if at > moment)
            if len(later) >= 20:
                return later[19] - moment
            assert time.monotonic() < deadline, (
                f"no writes: {self.unexpected[-3:]} {self.server.log[-3000:]}"
            )
            await asyncio.sleep(0.02)


@asynccontextmanager
async def writing(url: str, *, clients: int = 16) -> AsyncIterator[Writers]:
    """Run clients against an application; at the end it must still be the same process."""
    with APPLICATION.server(url, pool="5 5 8") as server:
        process = server.process.pid
        async with client_of(server) as http:
            writers = Writers(server)
            tasks = [asyncio.create_task(writers.write(http)) for _ in range(clients)]
            try:
                yield writers
            finally:
                writers.running = False
                await asyncio.gather(*tasks)
        assert server.running
        assert server.process.pid == process
        server.stop()
        assert not writers.unexpected, (writers.unexpected[:5], server.log[-3000:])
