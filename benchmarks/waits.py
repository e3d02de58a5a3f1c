"""How long the unluckiest waits: 300 tasks that share 5 connections, on both event loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import uvloop
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from reviewpoint_db import Database, DatabaseConfig, PoolConfig

THEIRS: Final = "plain SQLAlchemy"
OURS: Final = "reviewpoint_db"
CLIENTS: Final = 300
SIZE: Final = 5
#: What a connection is used for: a query and a millisecond of the handler's own.
_QUERY: Final = text("SELECT 1")
_WORK: Final = 0.001


#: Servers run on uvloop, tests and scripts on asyncio's own, whose timers cost more.
LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def waits(url: str, seconds: float, rounds: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Return each round's throughput and percentiles of the wait in milliseconds, by loop and pool."""
    runs: dict[str, dict[str, list[dict[str, float]]]] = {
        loop: {THEIRS: [], OURS: []} for loop in LOOPS
    }
    for _ in range(rounds):
        for loop, of in runs.items():
            for name, contend in ((THEIRS, _theirs), (OURS, _ours)):
                with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                    of[name].append(runner.run(contend(url, seconds)))
    return runs


async def _theirs(url: str, seconds: float) -> dict[str, float]:
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://", 1),
        pool_size=SIZE,
        max_overflow=0,
        pool_timeout=60,
    )
    try:
        return await _contend(engine, seconds)
    finally:
        await engine.dispose()


async def _ours(url: str, seconds: float) -> dict[str, float]:
    pool = PoolConfig(size=SIZE, max_overflow=0, timeout=60)
    config = DatabaseConfig(url=url, environment="prod", pool=pool)
    async with Database(config) as database:
        return await _contend(database.engine, seconds)


async def _contend(engine: AsyncEngine, seconds: float) -> dict[str, float]:
    waited: list[float] = []
    await asyncio.gather(*(_use(engine, [], 0.0) for _ in range(SIZE)))  # a warm pool
    until = time.perf_counter() + seconds
    started = time.perf_counter()
    await asyncio.gather(*(_use(engine, waited, until) for _ in range(CLIENTS)))
    elapsed = time.perf_counter() - started
    waited.sort()
    return {
        "per_second": len(waited) / elapsed,
        "p50": waited[len(waited) // 2] * 1000,
        "p99": waited[int(len(waited) * 0.99)] * 1000,
        "p999": waited[int(len(waited) * 0.999)] * 1000,
    }


async def _use(engine: AsyncEngine, waited: list[float], until: float) -> None:
    while True:
        asked = time.perf_counter()
        async with engine.connect() as connection:
            waited.append(time.perf_counter() - asked)
            await connection.execute(_QUERY)
            await asyncio.sleep(_WORK)
        if time.perf_counter() >= until:
            return
