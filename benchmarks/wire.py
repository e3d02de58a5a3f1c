"""Round trips, counted on the wire by a relay: exact, and free of the machine's noise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from litestar import Litestar
from litestar.types import Message, Scope

from benchmarks.contenders import create
from tests.support.postgres import PostgresServer
from tests.support.relay import Relay

#: What is counted, and the route that does it.
EXCHANGES: Final = {
    "one SELECT, read session": "/read",
    "one SELECT, session": "/session",
    "SELECT + UPDATE + COMMIT": "/change",
}


def round_trips(url: str, names: list[str]) -> dict[str, dict[str, int]]:
    """Count the round trips of one warm request, per contender and exchange."""
    counted: dict[str, dict[str, int]] = {}
    with Relay.to(url) as relay:
        for name in names:
            counted[name] = asyncio.run(_count(create(name, relay.url(url)), relay))
    return counted


async def _count(app: Litestar, relay: Relay) -> dict[str, int]:
    counted = {}
    async with app.lifespan():
        for label, path in EXCHANGES.items():
            for _ in range(3):  # statements are prepared, the pool is warm
                await request(app, "GET", f"{path}/7")
            relay.reset()
            await request(app, "GET", f"{path}/7")
            counted[label] = relay.counters.round_trips
    return counted


def failures_after_restart(server: PostgresServer, url: str, names: list[str]) -> dict[str, int]:
    """Count which of the next 20 requests fail after the server was restarted under a warm pool."""
    return {name: asyncio.run(_restart(create(name, url), server)) for name in names}


async def _restart(app: Litestar, server: PostgresServer) -> int:
    async with app.lifespan():
        await asyncio.gather(*(request(app, "GET", f"/session/{i}") for i in range(5)))
        await asyncio.to_thread(server.restart, "immediate")
        return sum([await request(app, "GET", f"/session/{i}") != 200 for i in range(20)])


async def request(app: Litestar, method: str, path: str) -> int:
    """Send one request to an application in this process, and return the status."""
    status = 0

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    await app(scope(method, path), receive, send)
    return status


def scope(method: str, path: str) -> Scope:
    """Make the scope of a request as uvicorn does."""
    made: Any = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"bench")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    return cast("Scope", made)


async def timed(work: Callable[[], Awaitable[object]], times: int) -> float:
    """Return the CPU time in microseconds that one of many calls takes."""
    started = time.process_time()
    for _ in range(times):
        await work()
    return (time.process_time() - started) / times * 1e6
