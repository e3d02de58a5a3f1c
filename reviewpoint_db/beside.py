"""A driver's connection for looking at the database, also while the pool is full."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import greenlet_spawn

from reviewpoint_db.engine import backend_of, elastic_pool
from reviewpoint_db.pooled import open_record

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from reviewpoint_db.config import DatabaseConfig

__all__ = ["beside"]


@asynccontextmanager
async def beside(
    engine: AsyncEngine, config: DatabaseConfig, *, timeout: float
) -> AsyncIterator[Any]:
    """Lend an idle connection of the pool, or one that is opened for it and counted nowhere.

    Args:
        engine: The running loop's.
        config: Its settings.
        timeout: Seconds for opening it and, again, for closing it.
    """
    pool = elastic_pool(engine)
    if pool is not None and pool.checkedin() > 0:
        async with engine.connect() as connection:
            yield (await connection.get_raw_connection()).driver_connection
        return
    backend = backend_of(config)
    started = time.monotonic()
    record = await open_record(engine.pool, backend, timeout)
    driver = record.driver_connection
    try:
        yield driver
        await backend.close(driver, max(timeout - (time.monotonic() - started), 0.1))
    except BaseException:
        backend.terminate(driver)
        raise
    finally:
        # The driver's connection is closed by now, so that this waits for nothing.
        await greenlet_spawn(record.close)
