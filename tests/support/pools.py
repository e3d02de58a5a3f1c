"""Engines with our pool for tests, and waiting for a condition with a bound."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from reviewpoint_db.activity import Activity
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.engine import create_engine, elastic_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from reviewpoint_db.pool import ElasticPool


def make_engine(
    url: str,
    *,
    size: int = 2,
    max_overflow: int = 1,
    timeout: float = 10.0,
    engine_options: dict[str, Any] | None = None,
    connect_timeout: float = 5.0,
    activity: Activity | None = None,
    **pool: Any,
) -> AsyncEngine:
    """An engine with our pool; `timeout` may be shorter than configurations allow."""
    config = DatabaseConfig(
        url=url,
        environment="test",
        pool=PoolConfig(size=size, max_overflow=max_overflow, **pool),
        connect_timeout=connect_timeout,
        engine_options=engine_options or {},
    )
    engine = create_engine(config, activity or Activity("test"))
    if elastic_pool(engine) is not None:
        pool_of(engine)._timeout = timeout
    return engine


@asynccontextmanager
async def engine_with_pool(url: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    """An engine with our pool, disposed of at the end."""
    engine = make_engine(url, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


def pool_of(engine: AsyncEngine) -> ElasticPool:
    """The engine's pool as it is now."""
    pool = elastic_pool(engine)
    assert pool is not None
    return pool


async def until(condition: Callable[[], object], *, timeout: float = 10.0) -> None:
    """Waits until a condition holds; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.002)


async def backend_pid(connection: AsyncConnection) -> int:
    """The server's process behind a connection, asked without a round trip."""
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    pid: int = driver.get_server_pid()
    return pid
