"""Goodput at ten times the capacity: open-loop arrivals, each client waits for one second.

A client that gave up is still served: an ASGI handler is not cancelled when its client leaves.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sqlalchemy import text

from reviewpoint_db import Database, DatabaseConfig, PoolConfig
from reviewpoint_db.errors import PoolTimeoutError

CONNECTIONS = 4
#: Seconds that a request holds its connection, and that its client waits.
WORK = 0.1
PATIENCE = 1.0


async def goodput(url: str, *, times: float, seconds: float, target: float) -> dict[str, float]:
    """Offer `times` the capacity for `seconds`.

    Args:
        url: The database.
        times: 1 is as many requests as the pool can serve.
        seconds: How long they arrive.
        target: `pool.queue_target`; 0 sheds nothing.

    Returns:
        `answered`: within the client's patience, as a share of the capacity; `served`: all that
        held a connection, as such a share; `refused` and its slowest wait in seconds.
    """
    capacity = CONNECTIONS / WORK
    pool = PoolConfig(size=CONNECTIONS, max_overflow=0, queue_target=target)
    counts = {"answered": 0.0, "served": 0.0, "refused": 0.0, "slowest refusal": 0.0}
    config = DatabaseConfig(url=url, environment="test", pool=pool, observe=False)
    async with Database(config) as database:
        loop = asyncio.get_running_loop()

        async def request() -> None:
            arrived = loop.time()
            try:
                async with database.read_session() as session:
                    await session.execute(text("select pg_sleep(:work)"), {"work": WORK})
                    counts["served"] += 1
                    counts["answered"] += loop.time() - arrived <= PATIENCE
            except PoolTimeoutError:
                counts["refused"] += 1
                waited = loop.time() - arrived
                counts["slowest refusal"] = max(counts["slowest refusal"], waited)

        begun = loop.time()
        requests: list[asyncio.Task[None]] = []
        while (elapsed := loop.time() - begun) < seconds:
            due = int(elapsed * capacity * times) - len(requests)
            requests += [asyncio.create_task(request()) for _ in range(due)]
            await asyncio.sleep(0.005)
        counts = {**counts}  # what comes after the load does not count
        for task in requests:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*requests, return_exceptions=True)
    for name in ("answered", "served"):
        counts[name] /= capacity * seconds
    return counts
