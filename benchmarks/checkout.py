"""CPU time of taking a connection out of a warm pool and giving it back: no statement, no wait."""

from __future__ import annotations

import asyncio
import gc
import random
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.wire import timed
from reviewpoint_db import Database, DatabaseConfig, PoolConfig

_TIMES: Final = 200


def checkouts(url: str, rounds: int) -> dict[str, list[float]]:
    """Return microseconds of each round, of SQLAlchemy's pool and of ours."""
    gc.collect()
    gc.disable()
    try:
        return asyncio.run(_measure(url, rounds))
    finally:
        gc.enable()


async def _measure(url: str, rounds: int) -> dict[str, list[float]]:
    plain = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://", 1))
    config = DatabaseConfig(url=url, environment="prod", pool=PoolConfig(size=5, max_overflow=10))
    try:
        async with Database(config) as database:
            engines = {"plain SQLAlchemy": plain, "reviewpoint_db": database.engine}
            taken: dict[str, list[float]] = {name: [] for name in engines}
            for engine in engines.values():
                await timed(partial(_use, engine), _TIMES)
            for _ in range(rounds):
                for name in random.sample(list(engines), len(engines)):
                    engine = engines[name]
                    taken[name].append(await timed(partial(_use, engine), _TIMES))
                gc.collect()
            return taken
    finally:
        await plain.dispose()


async def _use(engine: AsyncEngine) -> None:
    async with engine.connect():
        pass
