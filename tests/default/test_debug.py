"""The debugging functions."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    create_async_engine,
)
from sqlalchemy.pool import NullPool

from reviewpoint_db import default


def test_worker_info_is_returned_and_logged(
    fresh: Any, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ("main", os.getpid(), threading.get_ident())
    assert default._log_worker_info() == expected
    assert log == [f"DEBUG Worker: main, PID: {expected[1]}, Thread: {expected[2]}\n"]
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    assert default._log_worker_info()[0] == "gw1"


async def test_the_pool_state_is_logged_without_credentials(
    on_postgres: Any, log: list[str]
) -> None:
    engine, _ = default.get_engine_and_sessionmaker()
    log.clear()
    async with engine.connect():
        default._log_engine_pool_state(engine, "Right now")
    assert [line.rstrip() for line in log[:-1]] == [
        "INFO Right now - Worker: main",
        "INFO Pool size: 5",
        "INFO Checked out: 1",
        "INFO Checked in: 0",
        "INFO Overflow: 0",
        "INFO Invalid: 0",
    ]
    assert log[-1].startswith("INFO DB URL: postgresql+asyncpg://postgres:***@127.0.0.1:")


def test_a_pool_without_a_state_is_a_warning(fresh: Any, log: list[str]) -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=NullPool)
    default._log_engine_pool_state(engine, "Right now")
    assert len(log) == 1
    assert log[0].startswith("WARNING Failed to get pool state: AttributeError")


async def test_debug_info_before_and_after(on_both: Any) -> None:
    info = default.get_connection_debug_info()
    assert info["worker_id"] == "main"
    assert info["process_id"] == os.getpid()
    assert info["thread_id"] == threading.get_ident()
    assert info["engine_initialized"] is False
    assert info["sessionmaker_initialized"] is False
    assert info["pool_size"] is None
    assert len(info) == 13
    async with default.get_async_session() as session:
        await session.execute(text("select 1"))
        info = default.get_connection_debug_info()
    assert info["engine_initialized"] is True
    assert info["sessionmaker_initialized"] is True
    assert info["engine_creation_count"] == 1
    assert info["session_creation_count"] == 1
    assert info["connection_failures"] == 0
    assert info["pool_size"] == 5
    assert info["pool_checked_out"] == 1
    assert info["pool_checked_in"] == 0
    assert info["pool_overflow"] == 0
    assert info["pool_invalidated"] == 0


def test_debug_info_has_a_14th_key_when_the_pool_cannot_be_read(
    fresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=NullPool)
    monkeypatch.setattr(default, "engine", engine)
    assert "NullPool" in default.get_connection_debug_info()["pool_error"]
