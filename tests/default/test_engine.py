"""The process-wide engine: when it is built, how often, and with which settings."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    async_sessionmaker,
)

from reviewpoint_db import default
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.disposal import dispose
from reviewpoint_db.errors import (
    ConfigurationError,
)
from tests.support.default import BOUND, config_of, create_notes, current, shown
from tests.support.notes import write


def test_importing_reads_no_settings_and_connects_nothing() -> None:
    code = (
        "import reviewpoint_db as r, reviewpoint_db.default as d;"
        "assert r.engine is d.engine is None and r.AsyncSessionLocal is None;"
        "assert d._engine_creation_count == 0"
    )
    environment = {**os.environ, "REVIEWPOINT_DB_URL": "nonsense", "REVIEWPOINT_ENVIRONMENT": "?"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


async def test_the_engine_is_there_after_its_first_use(on_both: Any) -> None:
    assert on_both.engine is None
    assert on_both.AsyncSessionLocal is None
    default.ensure_engine_initialized()
    assert isinstance(default.engine, AsyncEngine)
    assert isinstance(default.AsyncSessionLocal, async_sessionmaker)
    assert current().activity.snapshot().opened == 0
    async with default.AsyncSessionLocal() as session:
        assert await session.scalar(text("select 42")) == 42


async def test_ensuring_again_creates_nothing(on_sqlite: Any) -> None:
    default.ensure_engine_initialized()
    engine = default.engine
    default.ensure_engine_initialized()
    assert default.engine is engine
    assert default._engine_creation_count == 1


def test_100_racing_threads_create_one_engine(on_postgres: Any) -> None:
    barrier = threading.Barrier(100)
    engines: list[Any] = []

    def race() -> None:
        barrier.wait(BOUND)
        default.ensure_engine_initialized()
        engines.append(default.engine)

    threads = [threading.Thread(target=race) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert len(engines) == 100
    assert len(set(map(id, engines))) == 1
    assert default._engine_creation_count == 1


def test_threads_that_wait_for_the_lock_find_the_engine(on_sqlite: Any) -> None:
    waiting = threading.Thread(target=default.ensure_engine_initialized)
    with default._creation_lock:
        waiting.start()
        assert default.engine is None
    waiting.join(BOUND)
    default.ensure_engine_initialized()
    assert default._engine_creation_count == 1


def test_an_engine_built_before_a_loop_runs_belongs_to_the_first_loop(
    on_postgres: Any,
) -> None:
    default.ensure_engine_initialized()
    before = default.engine

    async def use() -> AsyncEngine | None:
        async with default.get_async_session() as session:
            assert await session.scalar(text("select 42")) == 42
        engine = default.engine
        await dispose(current().engine, None)
        return engine

    assert asyncio.run(use()) is before
    assert asyncio.run(use()) is not before


async def test_every_call_creates_a_new_engine(on_both: Any) -> None:
    first, sessions = default.get_engine_and_sessionmaker()
    second, _ = default.get_engine_and_sessionmaker()
    assert first is not second
    assert default._engine_creation_count == 2
    assert default.engine is None
    async with sessions() as session:
        assert await session.scalar(text("select 42")) == 42


async def test_a_callable_is_asked_when_an_engine_is_built(fresh: Any, sqlite_url: str) -> None:
    asked = []

    def settings() -> DatabaseConfig:
        asked.append(1)
        return config_of(sqlite_url)

    default.configure(settings)
    assert not asked
    default.ensure_engine_initialized()
    default.ensure_engine_initialized()
    assert asked == [1]


async def test_without_configuration_the_environment_is_read(
    fresh: Any, monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    monkeypatch.setenv("REVIEWPOINT_DB_URL", sqlite_url)
    default.ensure_engine_initialized()
    assert current().config.safe_url == DatabaseConfig(url=sqlite_url).safe_url


@pytest.mark.parametrize(
    ("environment", "worker", "size", "overflow", "reset"),
    [
        ("prod", None, 10, 20, "rollback"),
        ("dev", None, 5, 10, "rollback"),
        ("test", None, 5, 10, "rollback"),
        ("test", "gw3", 1, 1, "commit"),
        ("prod", "gw3", 1, 1, "commit"),
    ],
)
async def test_the_pool_is_by_environment(
    fresh: Any,
    monkeypatch: pytest.MonkeyPatch,
    postgres_url: str,
    environment: str,
    worker: str | None,
    size: int,
    overflow: int,
    reset: str,
) -> None:
    if worker:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    default.configure(config_of(postgres_url, environment=environment))
    engine, _ = default.get_engine_and_sessionmaker()
    pool: Any = engine.pool
    assert (pool.size(), pool._max_overflow) == (size, overflow)
    assert pool._reset_on_return.name == f"reset_{reset}"
    async with engine.connect() as connection:
        name = await connection.scalar(text("select current_setting('application_name')"))
    if worker:
        assert name == f"reviewpoint_test_{worker}_{os.getpid()}"
    else:
        assert name.startswith("default@")


async def test_sqlite_may_be_used_from_other_threads(on_sqlite: Any) -> None:
    engine, _ = default.get_engine_and_sessionmaker()
    arguments = current_config(engine).connect_args()
    assert arguments["check_same_thread"] is False


def current_config(engine: AsyncEngine) -> DatabaseConfig:
    owner = default._state.owner_of(engine)
    assert owner is not None
    return owner.config


async def test_an_in_memory_database_works(fresh: Any) -> None:
    default.configure(config_of("sqlite+aiosqlite:///:memory:"))
    default.ensure_engine_initialized()
    await create_notes()
    async with default.get_async_session() as session:
        await write(session, "first")
        await session.commit()
    async with default.get_async_session() as session:
        assert await session.scalar(text("select text from notes")) == "first"


def test_a_refused_configuration_is_raised_and_logged(fresh: Any, log: list[str]) -> None:
    def settings() -> DatabaseConfig:
        return DatabaseConfig(url="mysql://ann:s3cret@host/db")

    default.configure(settings)
    with pytest.raises(ConfigurationError):
        default.ensure_engine_initialized()
    assert default.engine is None
    assert shown(log, "ERROR Failed to create engine after 0.0")
    assert "s3cret" not in "".join(log)


async def test_a_refused_configuration_is_raised_by_a_session_too(
    fresh: Any, log: list[str]
) -> None:
    default.configure(lambda: DatabaseConfig(url="mysql://ann:s3cret@host/db"))
    with pytest.raises(SQLAlchemyError):
        async with default.get_async_session():
            pass
    assert shown(log, "ERROR Database error after 0.")
    assert "s3cret" not in "".join(log)


def test_what_is_no_configuration_is_refused() -> None:
    source: Any = "sqlite:///x.sqlite3"
    with pytest.raises(ConfigurationError, match=r"give DatabaseConfig\(url=\.\.\.\)"):
        default.configure(source)


async def test_settings_that_come_too_late_are_refused(fresh: Any, tmp_path: Path) -> None:
    """The engine that is there would go on, and its data land elsewhere."""
    first, second = (
        DatabaseConfig(url=f"sqlite:///{tmp_path / name}.sqlite3", environment="test")
        for name in ("first", "second")
    )
    default.configure(first)
    default.configure(lambda: second)
    default.configure(first)
    async with default.get_async_session():
        pass
    default.configure(lambda: first)  # changes nothing
    for other in (second, lambda: second, None):
        with pytest.raises(
            ConfigurationError, match=r"too late: .*/first\.sqlite3\. Call configure"
        ):
            default.configure(other)
    await default.stop()
    default.configure(second)
    async with default.get_async_session():
        assert current().config == second
