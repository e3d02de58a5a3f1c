"""What the tests of the original module share."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from reviewpoint_db import default
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from tests.support.notes import metadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BOUND = 10.0
STATE = (
    "engine",
    "AsyncSessionLocal",
    "_engine_creation_count",
    "_session_creation_count",
    "_connection_failures",
    "_creation_lock",
)


def config_of(url: str, **settings: Any) -> DatabaseConfig:
    return DatabaseConfig(url=url, **{"environment": "test", **settings})


def shown(lines: list[str], beginning: str) -> list[str]:
    return [line.strip() for line in lines if line.startswith(beginning)]


def current() -> Database:
    database = default._state.current
    assert database is not None
    return database


async def create_notes() -> None:
    async with current().engine.begin() as connection:
        await connection.run_sync(metadata.create_all)


@asynccontextmanager
async def sqlite_threads_end() -> AsyncIterator[None]:
    """Waits for the threads of the block's failed connections: they still answer this loop."""
    before = set(threading.enumerate())
    yield
    async with asyncio.timeout(BOUND):
        while any(
            "_connection_worker_thread" in thread.name
            for thread in set(threading.enumerate()) - before
        ):
            await asyncio.sleep(0.01)
