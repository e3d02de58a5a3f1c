"""The dictionary of a database's connections."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from reviewpoint_db.activity import Activity
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.debug_info import ConnectionDebugInfo, connection_debug_info, worker_id
from tests.support.postgres import PostgresServer

KEYS = set(ConnectionDebugInfo.__annotations__)


def test_there_are_the_originals_14_keys() -> None:
    assert len(KEYS) == 14


def test_without_an_engine_13_keys_are_there_and_the_pools_are_none() -> None:
    info: dict[str, Any] = dict(connection_debug_info(None))
    assert set(info) == KEYS - {"pool_error"}
    assert (info["engine_initialized"], info["sessionmaker_initialized"]) == (False, False)
    assert all(value is None for key, value in info.items() if key.startswith("pool_"))


def test_process_thread_and_worker_are_those_of_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw7")
    info = connection_debug_info(None)
    assert info["worker_id"] == "gw7"
    assert info["process_id"] == os.getpid()
    assert info["thread_id"] == threading.get_ident()
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    assert worker_id() == "main"


def test_the_counters_are_those_of_the_activity() -> None:
    activity = Activity("default")
    activity.engine_created()
    activity.session_created()
    activity.connection_failed("refused")
    info = connection_debug_info(None, activity, sessionmaker_initialized=True)
    assert info["engine_creation_count"] == 1
    assert info["session_creation_count"] == 1
    assert info["connection_failures"] == 1
    assert info["sessionmaker_initialized"] is True


async def test_the_gauges_are_true(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # its pool is 1 + 1
    async with Database(DatabaseConfig(url=postgres_url, environment="test")) as database:
        async with database.engine.connect(), database.engine.connect():
            pass
        async with database.engine.connect():
            info = database.debug_info()
            assert info["pool_size"] == 5
            assert info["pool_checked_out"] == 1
            assert info["pool_checked_in"] == 1
            assert info["pool_overflow"] == 0
            assert info["pool_invalidated"] == 0
            assert "pool_error" not in info


async def test_invalidated_counts_the_connections_that_were_lost(
    own_postgres: PostgresServer, own_url: str
) -> None:
    async with Database(DatabaseConfig(url=own_url, environment="test")) as database:
        async with database.engine.connect():
            pass
        # In a thread, so that this loop sees the connection's end, as a server's does.
        await asyncio.to_thread(own_postgres.restart)
        async with database.engine.connect():
            pass
        assert database.debug_info()["pool_invalidated"] == 1


async def test_a_pool_of_sqlalchemys_has_gauges_but_counts_no_invalidated(
    sqlite_url: str,
) -> None:
    url = sqlite_url.replace("sqlite:", "sqlite+aiosqlite:")
    engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, pool_size=2)
    info = connection_debug_info(engine)
    # SQLAlchemy says -2 of an empty pool.
    assert (info["pool_size"], info["pool_overflow"]) == (2, 0)
    assert info["pool_invalidated"] is None


def test_a_pool_that_cannot_be_read_is_an_error_in_the_dictionary(sqlite_url: str) -> None:
    url = sqlite_url.replace("sqlite:", "sqlite+aiosqlite:")
    info = connection_debug_info(create_async_engine(url, poolclass=NullPool))
    assert info["pool_error"] == "NullPool keeps no connections and has no gauges"
    assert info["pool_size"] is None
    assert set(info) == KEYS


def test_whatever_a_pool_raises_is_told_without_its_text() -> None:
    class Engine:
        @property
        def pool(self) -> Any:
            msg = "s3cret"
            raise ValueError(msg)

    info = connection_debug_info(Engine())  # type: ignore[arg-type]
    assert info["pool_error"].startswith("ValueError")
    assert "s3cret" not in info["pool_error"]
