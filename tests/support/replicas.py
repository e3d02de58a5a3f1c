"""A database whose read sessions use the standbys of a cluster."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from reviewpoint_db.config import DatabaseConfig, PoolConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from reviewpoint_db.database import Database
    from tests.support.cluster import PostgresCluster

PORT = text("select current_setting('port')::int")


def urls(cluster: PostgresCluster) -> tuple[str, str]:
    """The URLs of the primary, and of the standbys, for `url` and `read_url`."""
    primary, *standbys = cluster.servers
    address = ",".join(f"127.0.0.1:{each.port}" for each in standbys)
    url = primary.url("papers")
    return url, url.replace(f"127.0.0.1:{primary.port}", address)


def config(cluster: PostgresCluster, **settings: Any) -> DatabaseConfig:
    """The settings for the cluster's database `papers`."""
    url, read_url = urls(cluster)
    pool = PoolConfig(size=2, max_overflow=4, timeout=3)
    return DatabaseConfig(url=url, read_url=read_url, environment="test", pool=pool, **settings)


def reading(database: Database) -> int:
    """How many replicas are read."""
    assert database.replicas is not None
    return sum(one.state == "reading" for one in database.replicas.states())


async def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    """Waits until a condition holds; fails after that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def port(database: Database) -> int:
    """The port of the server that a new read session reads from."""
    async with database.read_session() as session:
        found: int = await session.scalar(PORT)
        return found
