"""The original module, sentence by sentence of its specification."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any
from unittest import mock
from urllib.parse import quote

import pytest
from fastapi import Depends, FastAPI, HTTPException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loguru import logger
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import NullPool, StaticPool

import reviewpoint_db
from reviewpoint_db import default, logs
from reviewpoint_db.asgi import UnitOfWorkMiddleware
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    PoolTimeoutError,
    SessionClosedError,
)
from tests.support.asgi import client
from tests.support.notes import held, metadata, stored, write, write_orphan
from tests.support.postgres import PostgresServer
from tests.support.relay import Relay

BOUND = 10.0
STATE = (
    "engine",
    "AsyncSessionLocal",
    "_engine_creation_count",
    "_session_creation_count",
    "_connection_failures",
    "_creation_lock",
)


@pytest.fixture
async def fresh(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The module as it is after the import; what a test builds is closed at its end."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    default._state.__init__()  # type: ignore[misc]
    yield default
    for database in default._state._built:
        await database.stop()
    default._state.__init__()  # type: ignore[misc]
    logs.disable()


def config_of(url: str, **settings: Any) -> DatabaseConfig:
    return DatabaseConfig(url=url, **{"environment": "test", **settings})


@pytest.fixture
def on_sqlite(fresh: Any, sqlite_url: str) -> Any:
    default.configure(config_of(sqlite_url))
    return fresh


@pytest.fixture
def on_postgres(fresh: Any, postgres_url: str) -> Any:
    default.configure(config_of(postgres_url))
    return fresh


@pytest.fixture
def on_both(fresh: Any, database_url: str) -> Any:
    default.configure(config_of(database_url))
    return fresh


@pytest.fixture
def log() -> Iterator[list[str]]:
    """All lines of the package, as `LEVEL message`."""
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, format="{level} {message}")
    logs.enable()
    yield lines
    logger.remove(sink)
    logs.disable()


def shown(lines: list[str], beginning: str) -> list[str]:
    return [line.strip() for line in lines if line.startswith(beginning)]


def current() -> Database:
    database = default._state.current
    assert database is not None
    return database


async def create_notes() -> None:
    async with current().engine.begin() as connection:
        await connection.run_sync(metadata.create_all)


# Lazy initialisation


def test_importing_reads_no_settings_and_connects_nothing() -> None:
    code = (
        "import reviewpoint_db as r, reviewpoint_db.default as d;"
        "assert r.engine is d.engine is None and r.AsyncSessionLocal is None;"
        "assert d._engine_creation_count == 0"
    )
    environment = {**os.environ, "REVIEWPOINT_DB_URL": "nonsense", "REVIEWPOINT_ENVIRONMENT": "?"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)


async def test_the_engine_is_there_after_its_first_use(on_both: Any) -> None:
    assert default.engine is None
    assert default.AsyncSessionLocal is None
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
        await current()._dispose(None, current().engine)
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


# Configuration


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


# Sessions


def test_get_async_session_is_one_object_that_inspection_takes_for_both(fresh: Any) -> None:
    function = default.get_async_session
    assert reviewpoint_db.get_async_session is function
    assert not inspect.iscoroutinefunction(function)
    assert inspect.isasyncgenfunction(function.__call__)
    assert not inspect.signature(function).parameters
    assert function.__name__ == "get_async_session"
    assert "async with" in (function.__doc__ or "")


async def test_a_session_for_a_block(on_both: Any) -> None:
    async with default.get_async_session() as session:
        assert isinstance(session, AsyncSession)
        assert await session.scalar(text("select 42")) == 42
    assert held(current()) == 0
    assert default._session_creation_count == 1


async def test_a_session_by_iteration(on_both: Any) -> None:
    async for session in default.get_async_session():
        assert await session.scalar(text("select 42")) == 42
    assert held(current()) == 0


async def test_what_is_not_committed_is_rolled_back(on_both: Any) -> None:
    default.ensure_engine_initialized()
    await create_notes()
    async with default.get_async_session() as session:
        await write(session, "committed")
        await session.commit()
        await write(session, "left")
    assert await stored(current()) == ["committed"]


async def test_an_error_rolls_back_and_closes(on_both: Any) -> None:
    default.ensure_engine_initialized()
    await create_notes()
    with pytest.raises(ZeroDivisionError):
        async with default.get_async_session() as session:
            await write(session, "lost")
            raise ZeroDivisionError
    assert await stored(current()) == []
    assert held(current()) == 0
    assert default._connection_failures == 0


async def test_a_cancelled_block_rolls_back_and_closes(on_postgres: Any) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with default.get_async_session() as session:
            await session.execute(text("select 1"))
            inside.set()
            await session.execute(text("select pg_sleep(60)"))

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert held(current()) == 0


async def test_except_sqlalchemy_error_catches_what_the_database_says(
    on_both: Any, log: list[str]
) -> None:
    default.ensure_engine_initialized()
    await create_notes()
    with pytest.raises(SQLAlchemyError) as raised:
        async with default.get_async_session() as session:
            await write(session, "s3cret")
            await write(session, "s3cret")
    assert isinstance(raised.value, IntegrityError)
    assert shown(log, "ERROR Database error after 0.")
    assert shown(log, "INFO After failed operation - Worker: main")
    assert "s3cret" not in "".join(log)


async def test_a_session_after_its_block_is_a_named_error(on_both: Any) -> None:
    async with default.get_async_session() as session:
        pass
    with pytest.raises(SessionClosedError, match="async with"):
        await session.execute(text("select 1"))


async def test_the_connection_is_tested_before_the_session_is_handed_out(
    fresh: Any, own_postgres: PostgresServer, own_url: str, log: list[str]
) -> None:
    default.configure(config_of(own_url, pool=PoolConfig(timeout=0.3)))
    async with default.get_async_session() as session:
        await session.execute(text("select 1"))
    await asyncio.to_thread(own_postgres.stop, "immediate")
    entered = False
    with pytest.raises(DatabaseUnavailableError):
        async with default.get_async_session() as session:
            entered = True
    assert not entered
    assert default._connection_failures > 0
    assert shown(log, "ERROR Connection test failed in 0.")
    own_postgres.start()
    async with default.get_async_session() as session:
        assert await session.scalar(text("select 42")) == 42


async def test_the_test_is_repeated_while_the_failure_may_pass(
    fresh: Any, own_postgres: PostgresServer, own_url: str
) -> None:
    default.configure(config_of(own_url))
    default.ensure_engine_initialized()
    own_postgres.stop("immediate")

    async def use() -> int | None:
        async with default.get_async_session() as session:
            answer: int | None = await session.scalar(text("select 42"))
            return answer

    using = asyncio.create_task(use())
    async with asyncio.timeout(BOUND):
        while not default._connection_failures:
            await asyncio.sleep(0.01)
    await asyncio.to_thread(own_postgres.start)
    assert await using == 42


async def test_a_connection_that_died_in_the_pool_is_replaced(
    fresh: Any, own_postgres: PostgresServer, own_url: str
) -> None:
    default.configure(config_of(own_url))
    async with default.get_async_session() as session:
        await session.execute(text("select 1"))
    # In a thread, so that this loop sees the connection's end, as a server's does.
    await asyncio.to_thread(own_postgres.restart, "immediate")
    for _ in range(20):
        async with default.get_async_session() as session:
            assert await session.scalar(text("select 42")) == 42


async def test_the_test_costs_no_round_trip_and_leaves_the_isolation_level_free(
    on_postgres: Any,
) -> None:
    async with default.get_async_session() as session:
        assert not session.in_transaction()
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        assert await session.scalar(text("show transaction_isolation")) == "serializable"


async def test_an_exhausted_pool_is_a_named_error_that_says_what_to_do(
    fresh: Any, postgres_url: str
) -> None:
    pool = PoolConfig(size=1, max_overflow=0, timeout=0.2)
    default.configure(config_of(postgres_url, pool=pool))
    async with default.get_async_session() as session:
        await session.execute(text("select 1"))
        with pytest.raises(PoolTimeoutError, match=r"pool\.size"):
            async with default.get_async_session():
                pass
    assert held(current()) == 0


# FastAPI


def fastapi_app() -> FastAPI:
    app = FastAPI()

    @app.get("/answer")
    async def answer(db: AsyncSession = Depends(default.get_async_session)) -> Any:
        return await db.scalar(text("select 42"))

    @app.get("/write")
    async def write_one(db: AsyncSession = Depends(default.get_async_session)) -> str:
        await write(db, "written")
        return "done"

    @app.get("/store")
    async def store_one(db: AsyncSession = Depends(default.get_async_session)) -> str:
        await write(db, "stored")
        await db.commit()
        return "done"

    @app.get("/refuse")
    async def refuse(db: AsyncSession = Depends(default.get_async_session)) -> str:
        await write(db, "refused")
        raise HTTPException(409)

    @app.get("/break")
    async def break_down(db: AsyncSession = Depends(default.get_async_session)) -> str:
        await write(db, "broken")
        raise ZeroDivisionError

    @app.get("/same")
    async def same(
        db: AsyncSession = Depends(default.get_async_session),
        other: AsyncSession = Depends(default.get_async_session),
    ) -> bool:
        return db is other

    return app


async def test_depends_gives_a_session_and_closes_it(on_both: Any, log: list[str]) -> None:
    default.ensure_engine_initialized()
    await create_notes()
    async with client(fastapi_app()) as http:
        assert (await http.get("/answer")).json() == 42
        assert (await http.get("/same")).json() is True
        assert (await http.get("/write")).status_code == 200
        assert (await http.get("/store")).status_code == 200
        assert (await http.get("/refuse")).status_code == 409
        assert (await http.get("/break")).status_code == 500
    assert await stored(current()) == ["stored"]
    assert held(current()) == 0
    # An HTTP answer is no failure; anything else is.
    assert len(shown(log, "ERROR Unexpected error after 0.")) == 1
    assert len(shown(log, "DEBUG Unexpected error after 0.")) == 1


async def test_depends_joins_the_unit_of_work_of_a_middleware(on_both: Any, log: list[str]) -> None:
    default.ensure_engine_initialized()
    await create_notes()
    database = current()
    app = fastapi_app()
    sessions: list[AsyncSession] = []

    @app.get("/joined")
    async def joined(db: AsyncSession = Depends(default.get_async_session)) -> bool:
        unit = reviewpoint_db_unit()
        sessions.append(db)
        async with default.get_async_session() as own:
            return unit.session is db and own is not db

    @app.exception_handler(ZeroDivisionError)
    async def answered(request: object, error: Exception) -> Any:
        from fastapi.responses import PlainTextResponse

        return PlainTextResponse("never mind")

    stack = UnitOfWorkMiddleware(
        app, database, commit="autocommit", origin=lambda scope: f"GET {scope['path']}"
    )
    async with client(stack) as http:
        assert (await http.get("/joined")).json() is True
        assert (await http.get("/break")).status_code == 200
        assert (await http.get("/refuse")).status_code == 409
    with pytest.raises(SessionClosedError):
        await sessions[0].execute(text("select 1"))
    assert held(database) == 0
    assert await stored(database) == []
    assert shown(log, "DEBUG Session rollback completed for GET /break")


def reviewpoint_db_unit() -> Any:
    from reviewpoint_db.context import current_units

    units = current_units.get()
    assert units is not None
    return units["default"]


async def test_an_error_whose_rollback_fails_is_still_the_one_that_is_told(
    on_sqlite: Any, log: list[str]
) -> None:
    default.ensure_engine_initialized()
    app = fastapi_app()
    stack = UnitOfWorkMiddleware(app, current(), commit="manual", origin=lambda scope: "GET /x")

    @app.get("/stuck")
    async def stuck(db: AsyncSession = Depends(default.get_async_session)) -> str:
        db.rollback = mock.AsyncMock(side_effect=OSError)  # type: ignore[method-assign]
        raise HTTPException(418)

    async with client(stack) as http:
        assert (await http.get("/stuck")).status_code == 418
    assert shown(log, "ERROR Session rollback failed: OSError")


# Health


async def test_a_healthy_database_is_true(on_both: Any, log: list[str]) -> None:
    assert await default.db_healthcheck() is True
    assert default.engine is not None
    assert shown(log, "INFO Starting healthcheck")
    assert shown(log, "DEBUG Connection established in 0.")
    assert shown(log, "DEBUG Query answered in 0.")
    assert shown(log, "INFO Healthcheck passed in 0.")
    assert shown(log, "INFO After healthcheck - Worker: main")


async def test_an_unreachable_database_is_false(
    fresh: Any, own_postgres: PostgresServer, own_url: str, log: list[str]
) -> None:
    default.configure(config_of(own_url))
    own_postgres.stop("immediate")
    assert await default.db_healthcheck() is False
    assert shown(log, "ERROR Healthcheck failed after 0.")


async def test_a_silent_database_is_false_in_time(fresh: Any, postgres_url: str) -> None:
    with Relay.to(postgres_url) as relay:
        default.configure(config_of(relay.url(postgres_url), health_timeout=0.3))
        relay.blackhole()
        async with asyncio.timeout(BOUND):
            assert await default.db_healthcheck() is False
        relay.restore()


async def test_an_exhausted_pool_is_still_healthy(fresh: Any, postgres_url: str) -> None:
    pool = PoolConfig(size=1, max_overflow=0)
    default.configure(config_of(postgres_url, pool=pool))
    async with default.get_async_session() as session:
        await session.execute(text("select 1"))
        async with asyncio.timeout(BOUND):
            assert await default.db_healthcheck() is True


async def test_an_application_s_failed_check_is_not_the_databases(on_sqlite: Any) -> None:
    async def fails() -> bool:
        return False

    default.ensure_engine_initialized()
    current().add_check("cache", fails)
    assert await default.db_healthcheck() is True


async def test_a_full_server_is_a_database_that_is_there(
    on_sqlite: Any, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    from reviewpoint_db.health import CheckResult, HealthReport

    refused = CheckResult(name="connection", status="degraded", detail="53300", code="53300")
    report = HealthReport(
        status="degraded",
        cause="saturated",
        connected_in=None,
        latency=None,
        checked_at=None,  # type: ignore[arg-type]
        checks=(refused,),
    )
    default.ensure_engine_initialized()
    monkeypatch.setattr(current(), "health", mock.AsyncMock(return_value=report))
    assert await default.db_healthcheck() is True
    assert not shown(log, "DEBUG Query answered")


async def test_a_wrong_configuration_is_false(fresh: Any, log: list[str]) -> None:
    default.configure(lambda: DatabaseConfig(url="mysql://ann:s3cret@host/db"))
    assert await default.db_healthcheck() is False
    assert "s3cret" not in "".join(log)


# Debugging


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


# Logging


async def test_the_timings_of_a_session_are_logged_at_the_originals_levels(
    on_both: Any, log: list[str]
) -> None:
    async with default.get_async_session():
        pass
    for beginning in (
        "INFO Initializing global engine and sessionmaker",
        "INFO Starting engine creation",
        "INFO Engine created successfully in 0.",
        "INFO After creation - Worker: main",
        "DEBUG Session created in 0.",
        "DEBUG Connection test passed in 0.",
        "DEBUG Session closed",
        "DEBUG Session completed in 0.",
    ):
        assert len(shown(log, beginning)) == 1, beginning


async def test_lines_carry_the_handler_and_request_id(on_sqlite: Any, log: list[str]) -> None:
    default.ensure_engine_initialized()
    app = FastAPI()

    @app.get("/papers")
    async def papers() -> str:
        async with default.get_async_session():
            return "done"

    stack = UnitOfWorkMiddleware(
        app, current(), commit="manual", origin=lambda scope: "GET /papers list_papers"
    )
    async with client(stack) as http:
        await http.get("/papers", headers={"x-request-id": "r-17"})
    (line,) = shown(log, "DEBUG Session completed")
    assert line.endswith("for GET /papers list_papers [r-17]")


OFF = """
import asyncio, sys
from loguru import logger
from reviewpoint_db import default, default_log, logs

asked = []
default_log.describe_origin = lambda: asked.append(1)
logger.remove()

async def use():
    async with default.get_async_session():
        pass
    assert await default.db_healthcheck()
    await default.stop()

default.configure(default.DatabaseConfig(url=sys.argv[1]))
logger.add(print, level="ERROR")
asyncio.run(use())
assert not asked, "below the level of every sink"
logger.add(print, level="DEBUG")
logs.disable()
asyncio.run(use())
assert not asked, "switched off"
logs.enable()
asyncio.run(use())
assert asked
"""


def test_a_line_that_is_off_is_not_formatted(sqlite_url: str) -> None:
    code = OFF.replace("default.DatabaseConfig", "__import__('reviewpoint_db').DatabaseConfig")
    subprocess.run([sys.executable, "-c", code, sqlite_url], check=True, timeout=60)


HOSTILE = st.text(alphabet=st.sampled_from("@:/%?#[]'\" \\&=+aü€"), min_size=1, max_size=8).map(
    lambda text: f"s3c{text}ret"
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(password=HOSTILE, in_query=st.booleans())
async def test_no_password_is_in_a_log_line_or_an_error(
    fresh: Any, log: list[str], password: str, in_query: bool
) -> None:
    log.clear()
    quoted = quote(password, safe="")
    where = f"ann@127.0.0.1:1/db?password={quoted}" if in_query else f"ann:{quoted}@127.0.0.1:1/db"
    config = config_of(f"postgresql://{where}", pool=PoolConfig(timeout=0.01))
    default._state.__init__()  # type: ignore[misc]
    default.configure(config)
    told = [repr(config)]
    try:
        async with default.get_async_session():
            pass
    except SQLAlchemyError as error:
        told += [str(error), repr(error)]
    assert await default.db_healthcheck() is False
    told += [repr(default.get_connection_debug_info()), repr(await current().health()), *log]
    await default.stop()
    assert len(log) > 10
    for secret in (password, quoted):
        assert secret not in "".join(told)


# State that is set and deleted from outside


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
    if module is reviewpoint_db:
        monkeypatch.setattr(module, "get_engine_and_sessionmaker", lambda: ("E", "S"))
    else:
        monkeypatch.setattr(module, "get_engine_and_sessionmaker", lambda: ("E", "S"))
    default.ensure_engine_initialized()
    assert (default.engine, default.AsyncSessionLocal) == ("E", "S")


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
    with pytest.raises(IntegrityError):
        async with default.get_async_session() as session:
            await write(session, "twice")
            await write(session, "twice")
    async with default.get_async_session() as session:
        await write(session, "left")
    async with default.get_async_session() as session:
        assert await session.scalar(text("select count(*) from notes")) == 0
    assert default._session_creation_count == 3
    assert default._engine_creation_count == 0
    assert shown(log, "DEBUG Session rollback completed")
    await engine.dispose()


async def test_a_patched_sessionmaker_that_cannot_connect_is_counted(
    fresh: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'no' / 'such' / 'folder'}")
    monkeypatch.setattr(default, "engine", engine)
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


# The application's database


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
        assert default.engine is None
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
            default.engine = None
            default.ensure_engine_initialized()
            assert default.engine is database.engine
            default.engine = reading
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
    with pytest.raises(IntegrityError):
        async with default.get_async_session() as session:
            await write_orphan(session)
            await session.commit()
    assert await stored(current()) == []
