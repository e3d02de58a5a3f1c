"""State that is read, set and deleted from outside."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import NullPool, StaticPool

import reviewpoint_db
from reviewpoint_db import default
from reviewpoint_db.database import Database
from tests.support.default import BOUND, STATE, config_of, current, shown, sqlite_threads_end
from tests.support.notes import metadata, write


@pytest.fixture(params=["default", "package", "forwarding"])
def module(request: pytest.FixtureRequest, fresh: Any) -> Iterator[Any]:
    """A module with the original's names: ours, the package, and one of an application."""
    if request.param != "forwarding":
        yield default if request.param == "default" else reviewpoint_db
        return
    name = "an_application_core_database"
    module: Any = ModuleType(name)
    sys.modules[name] = module
    module.engine = None
    module.get_async_session = default.get_async_session
    module.db_healthcheck = own = lambda: "own"
    default.forward(name)
    assert module.db_healthcheck is own
    del module.db_healthcheck
    default.forward(name)
    yield module
    del sys.modules[name]


def test_all_names_of_the_original_are_there(module: Any) -> None:
    for name in (
        *STATE,
        "get_engine_and_sessionmaker",
        "ensure_engine_initialized",
        "get_async_session",
        "db_healthcheck",
        "get_connection_debug_info",
        "ConnectionDebugInfo",
        "_log_worker_info",
        "_log_engine_pool_state",
    ):
        assert getattr(module, name) is getattr(default, name) or name.startswith("_")


@pytest.mark.parametrize("name", STATE)
def test_state_is_set_and_deleted_by_monkeypatch_and_mock(module: Any, name: str) -> None:
    before = getattr(default, name)
    value = 17 if name.endswith(("count", "failures")) else mock.MagicMock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, value)
        assert getattr(default, name) == value
    assert getattr(default, name) == before
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(module, name)
        assert not hasattr(default, name)
        with pytest.raises(AttributeError):
            delattr(module, name)
    assert getattr(default, name) == before
    with mock.patch.object(module, name, value):
        assert getattr(reviewpoint_db, name) == value
    assert getattr(default, name) == before


def test_a_patched_function_is_used_by_the_others(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "get_engine_and_sessionmaker", lambda: ("E", "S"))
    module.ensure_engine_initialized()
    assert (module.engine, module.AsyncSessionLocal) == ("E", "S")


async def test_functions_use_a_patched_engine(
    on_both: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    default.ensure_engine_initialized()
    before = default.engine, default.AsyncSessionLocal
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other'}", poolclass=NullPool)
    async with other.begin() as connection:
        await connection.execute(text("create table only_here (a)"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default, "engine", other)
        default.ensure_engine_initialized()
        assert default.engine is other
        async with default.get_async_session() as session:
            await session.execute(text("select * from only_here"))
        assert default.AsyncSessionLocal is default.AsyncSessionLocal
        assert await default.db_healthcheck() is True
        assert default.get_connection_debug_info()["engine_initialized"] is True
    assert (default.engine, default.AsyncSessionLocal) == before
    await other.dispose()


async def test_functions_use_a_patched_sessionmaker(
    fresh: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other'}")
    monkeypatch.setattr(default, "AsyncSessionLocal", async_sessionmaker(engine))
    monkeypatch.setattr(default, "engine", engine)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)

    async def collide() -> None:
        async with default.get_async_session() as session:
            await write(session, "twice")
            await write(session, "twice")

    with pytest.raises(IntegrityError):
        await collide()
    async with default.get_async_session() as session:
        await write(session, "left")
    async with default.get_async_session() as session:
        assert await session.scalar(text("select count(*) from notes")) == 0
    assert default._session_creation_count == 3
    assert default._engine_creation_count == 0
    assert shown(log, "DEBUG Session rollback completed")
    await engine.dispose()


async def test_ensuring_builds_what_is_missing_and_leaves_what_is_patched(
    on_sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = mock.Mock()
    monkeypatch.setattr(default, "AsyncSessionLocal", sessions)
    default.ensure_engine_initialized()
    assert default.engine is current().engine
    assert default.AsyncSessionLocal is sessions


async def test_a_patch_stays_when_an_application_starts(fresh: Any, sqlite_url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patched = mock.MagicMock()
        patch.setattr(default, "engine", patched)
        with default.use(Database(config_of(sqlite_url))):
            assert default.engine is patched
    assert default.engine is None


async def test_a_patched_sessionmaker_that_cannot_connect_is_counted(
    fresh: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'no' / 'such' / 'folder'}")
    monkeypatch.setattr(default, "engine", engine)
    async with sqlite_threads_end():
        with pytest.raises(SQLAlchemyError):
            async with default.get_async_session():
                pass
        assert default._connection_failures == 1
        assert await default.db_healthcheck() is False
        await engine.dispose()


async def test_sessions_may_be_mocked(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = mock.AsyncMock()
    monkeypatch.setattr(default, "AsyncSessionLocal", mock.Mock(return_value=session))
    monkeypatch.setattr(default, "engine", mock.MagicMock())
    async with default.get_async_session() as given:
        assert given is session
    session.close.assert_awaited_once()
    session.commit.assert_not_awaited()
    assert default.get_connection_debug_info()["engine_initialized"] is True


async def test_a_shared_connection_is_not_tested(
    fresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    monkeypatch.setattr(default, "engine", engine)
    async with default.get_async_session() as first:
        await first.execute(text("create table t (a)"))
        await first.execute(text("insert into t values (1)"))
        async with default.get_async_session():
            # Testing here would have rolled the first one's row back.
            assert await first.scalar(text("select count(*) from t")) == 1
    await engine.dispose()


async def test_a_patched_engine_that_hangs_is_false_in_time(
    fresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging:
        pool = None

        def connect(self) -> Any:
            connecting = mock.MagicMock()
            connecting.__aenter__ = mock.AsyncMock(side_effect=asyncio.Event().wait)
            return connecting

    monkeypatch.setattr(default, "engine", Hanging())
    monkeypatch.setattr(default, "_HEALTH_TIMEOUT", 0.05)
    async with asyncio.timeout(BOUND):
        assert await default.db_healthcheck() is False


async def test_an_engine_reset_to_none_is_built_anew_and_the_former_one_comes_back(
    on_both: Any, sqlite_url: str
) -> None:
    default.ensure_engine_initialized()
    before = default.engine, default.AsyncSessionLocal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default, "engine", None)
        patch.setattr(default, "AsyncSessionLocal", None)
        assert default.get_connection_debug_info()["engine_initialized"] is False
        async with default.get_async_session() as session:
            assert await session.scalar(text("select 42")) == 42
        assert default.engine is not None
        assert default.engine is not before[0]
        assert default._engine_creation_count == 2
    assert (default.engine, default.AsyncSessionLocal) == before
    async with default.get_async_session() as session:
        assert await session.scalar(text("select 42")) == 42


async def test_a_deleted_engine_is_built_anew(on_sqlite: Any) -> None:
    default.ensure_engine_initialized()
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(default, "engine")
        patch.delattr(default, "_session_creation_count")
        assert default.get_connection_debug_info()["engine_initialized"] is False
        assert default.get_connection_debug_info()["session_creation_count"] == 0
        async with default.get_async_session() as session:
            assert await session.scalar(text("select 42")) == 42


async def test_counters_count_on_from_what_they_are_set_to(
    on_sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with default.get_async_session():
        pass
    monkeypatch.setattr(reviewpoint_db, "_session_creation_count", 10)
    async with default.get_async_session():
        pass
    assert default._session_creation_count == 11
    assert default.get_connection_debug_info()["session_creation_count"] == 11
