"""The running application's database behind the original's names."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

import reviewpoint_db
from reviewpoint_db import default
from reviewpoint_db.database import Database
from reviewpoint_db.errors import (
    ConfigurationError,
)
from tests.support.default import BOUND, config_of, create_notes, current
from tests.support.notes import held, stored, write_orphan


async def test_while_an_application_runs_its_database_is_this_one(
    fresh: Any, sqlite_url: str
) -> None:
    async with Database(config_of(sqlite_url)) as database:
        with default.use(database):
            assert default.engine is database.engine
            assert reviewpoint_db.AsyncSessionLocal is database.sessionmaker
            default.ensure_engine_initialized()
            async with default.get_async_session() as session:
                await session.execute(text("select 1"))
                assert held(database) == 1
            assert await default.db_healthcheck() is True
            assert default._engine_creation_count == 1
            assert default._session_creation_count == 1
        assert fresh.engine is None
        assert default._session_creation_count == 1
        with default.use(database):
            assert default._engine_creation_count == 1
            async with default.get_async_session():
                pass
            assert default._session_creation_count == 2
        assert default._session_creation_count == 2


async def test_a_reset_engine_is_the_applications_again(fresh: Any, sqlite_url: str) -> None:
    async with Database(config_of(sqlite_url)) as database:
        with default.use(database):
            reading = default.engine
            fresh.engine = None
            default.ensure_engine_initialized()
            assert default.engine is database.engine
            fresh.engine = reading
            assert default.engine is database.engine
            assert default._engine_creation_count == 1


async def test_a_start_ends_a_reset(on_sqlite: Any, tmp_path: Any) -> None:
    default.ensure_engine_initialized()
    default.engine = None
    async with Database(config_of(f"sqlite:///{tmp_path / 'app'}")) as database:
        with default.use(database):
            assert default.engine is database.engine


async def test_an_engine_of_an_application_that_is_gone_is_not_used_again(
    on_sqlite: Any, tmp_path: Any
) -> None:
    def run() -> Any:
        database = Database(config_of(f"sqlite:///{tmp_path / 'app'}"))
        with default.use(database):
            return default.engine

    engine = run()
    gc.collect()
    default.engine = engine
    assert default.engine is None


async def test_a_database_with_another_name_changes_nothing(fresh: Any, sqlite_url: str) -> None:
    with default.use(Database(config_of(sqlite_url, name="archive"))):
        assert default.engine is None


async def test_deleted_counters_stay_deleted_when_an_application_ends(
    fresh: Any, sqlite_url: str
) -> None:
    with default.use(Database(config_of(sqlite_url))):
        del default._session_creation_count
    assert not hasattr(default, "_session_creation_count")


async def test_two_applications_may_share_settings_but_not_differ(
    fresh: Any, sqlite_url: str, tmp_path: Any
) -> None:
    first, second = Database(config_of(sqlite_url)), Database(config_of(sqlite_url))
    with default.use(first), default.use(second):
        assert default._state.current is second
        third = Database(config_of(f"sqlite:///{tmp_path / 'third'}"))
        with pytest.raises(ConfigurationError, match="third"), default.use(third):
            pass
    with default.use(first), default.use(first):
        pass
    assert default._state.current is None


async def test_stop_closes_and_the_next_use_builds_anew(
    on_postgres: Any, postgres: Any, postgres_url: str
) -> None:
    async with default.get_async_session() as session:
        await session.execute(text("select 1"))
    await default.stop()
    assert default.engine is None
    assert await asyncio.to_thread(postgres.sessions, postgres_url.rpartition("/")[2]) == []
    await default.stop()
    async with default.get_async_session() as session:
        assert await session.scalar(text("select 42")) == 42


def test_a_counter_is_read_while_an_engine_is_built_in_another_thread(on_sqlite: Any) -> None:
    started = time.monotonic()
    with default._creation_lock:
        assert default.get_connection_debug_info()["engine_creation_count"] == 0
    assert time.monotonic() - started < BOUND


async def test_a_failing_commit_is_the_handlers_to_see(on_both: Any) -> None:
    default.ensure_engine_initialized()
    await create_notes()

    async def commit() -> None:
        async with default.get_async_session() as session:
            await write_orphan(session)
            await session.commit()

    with pytest.raises(IntegrityError):
        await commit()
    assert await stored(current()) == []
