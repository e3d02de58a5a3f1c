"""What the tests of the original module share."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from reviewpoint_db import default
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from tests.support.notes import metadata

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


async def sqlite_threads_end() -> None:
    """Waits for the threads of aiosqlite's connections that failed: they still answer this loop."""
    async with asyncio.timeout(BOUND):
        while any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
