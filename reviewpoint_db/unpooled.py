"""Connections outside of the pool, for health checks and the server's view while the pool is full."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.util import greenlet_spawn

from reviewpoint_db.engine import backend_of, elastic_pool
from reviewpoint_db.pooled import open_record

if TYPE_CHECKING:
    from sqlalchemy import Pool
    from sqlalchemy.ext.asyncio import AsyncEngine

    from reviewpoint_db.backend import Backend
    from reviewpoint_db.config import DatabaseConfig

__all__ = ["idle_or_unpooled", "open_unpooled"]

#: Seconds left to a close that starts at its deadline; 0 would mean no limit to some drivers.
_SOON: Final = 0.001


@asynccontextmanager
async def idle_or_unpooled(
    engine: AsyncEngine, config: DatabaseConfig, *, timeout: float
) -> AsyncIterator[Any]:
    """Lend the driver's connection: an idle one of the pool, or else one outside of it.

    Args:
        engine: The running loop's.
        config: Its settings.
        timeout: Seconds until one outside of the pool is closed again.
    """
    pool = elastic_pool(engine)
    if pool is not None and pool.checkedin() > 0:
        async with engine.connect() as connection:
            yield (await connection.get_raw_connection()).driver_connection
        return
    async with open_unpooled(engine.pool, backend_of(config), timeout=timeout) as driver:
        yield driver


@asynccontextmanager
async def open_unpooled(pool: Pool, backend: Backend, *, timeout: float) -> AsyncIterator[Any]:
    """Open a connection as the pool does, without counting it; close it at the block's end.

    Args:
        pool: Whose settings and listeners are used.
        backend: The driver's `Backend`.
        timeout: Seconds for opening it; what is left of them is for closing it.
    """
    deadline = time.monotonic() + timeout
    record = await open_record(pool, backend, timeout)
    driver = record.driver_connection
    try:
        yield driver
        await backend.close(driver, max(deadline - time.monotonic(), _SOON))
    except BaseException:
        backend.terminate(driver)
        raise
    finally:
        # The driver's connection is closed by now, so that this waits for nothing.
        await greenlet_spawn(record.close)
