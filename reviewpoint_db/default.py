"""The process-wide database, by the names of the original module.

Importing reads no settings and connects nothing: `engine` and `AsyncSessionLocal` are None until
`ensure_engine_initialized()` or a session asks for them. While an application with a database
named "default" runs, they are that database's: one engine, never two. All state names can be read,
set and deleted from outside, here and on every module that `forward`s them.

    configure(DatabaseConfig(url="postgresql://ann@localhost/papers"))

    async with get_async_session() as session:
        await session.execute(text("select 42"))
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from loguru import logger
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from reviewpoint_db import logs
from reviewpoint_db.config import DatabaseConfig, refuse_config
from reviewpoint_db.debug_info import ConnectionDebugInfo, connection_debug_info
from reviewpoint_db.default_log import ORIGIN
from reviewpoint_db.default_log import log_pool_state as _log_engine_pool_state
from reviewpoint_db.default_log import log_worker_info as _log_worker_info
from reviewpoint_db.default_session import DEFAULT_NAME, DefaultSessions
from reviewpoint_db.default_state import STATE_NAMES, ConfigSource, DefaultState
from reviewpoint_db.modules import forward_names
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.scope import ScopeFactory

if TYPE_CHECKING:
    import threading

    from reviewpoint_db.database import Database

    # Attributes of `_state`: this module forwards to it, like every other.
    engine: AsyncEngine | None
    AsyncSessionLocal: async_sessionmaker[AsyncSession] | None
    _engine_creation_count: int
    _session_creation_count: int
    _connection_failures: int
    _creation_lock: threading.Lock

__all__ = (
    "AsyncSessionLocal",
    "ConnectionDebugInfo",
    "_connection_failures",
    "_creation_lock",
    "_engine_creation_count",
    "_log_engine_pool_state",
    "_log_worker_info",
    "_session_creation_count",
    "configure",
    "db_healthcheck",
    "engine",
    "ensure_engine_initialized",
    "forward",
    "get_async_session",
    "get_connection_debug_info",
    "get_engine_and_sessionmaker",
    "stop",
    "use",
)

_FUNCTION_NAMES: Final = (
    "ConnectionDebugInfo",
    "_log_engine_pool_state",
    "_log_worker_info",
    "db_healthcheck",
    "ensure_engine_initialized",
    "get_async_session",
    "get_connection_debug_info",
    "get_engine_and_sessionmaker",
)
#: Seconds for the check of an engine that was set from outside, and so has no config of ours.
_HEALTH_TIMEOUT: Final = 2.0

_state: Final = DefaultState()
_late_checks: Final[set[asyncio.Task[None]]] = set()


def configure(source: ConfigSource) -> None:
    """Say where the process-wide database is, and let its log lines through.

    Args:
        source: A config; or a callable that returns one, asked each time an engine is built; or
            None for the environment.

    Raises:
        ConfigurationError: It is none of these; or the process-wide database was used already, with
            other settings: `await stop()` first.
    """
    if source is not None and not isinstance(source, DatabaseConfig) and not callable(source):
        raise refuse_config(source)
    _state.configure(source)
    logs.enable()


@contextmanager
def use(database: Database) -> Iterator[None]:
    """Make an application's database the one behind this module while the application runs.

    Args:
        database: One with another name than "default" changes nothing here.

    Raises:
        ConfigurationError: Another application runs, whose "default" database has other settings.
    """
    if database.name != DEFAULT_NAME:
        yield
        return
    with _state.used(database):
        yield


def forward(module_name: str) -> None:
    """Make the original's names of a module those of this one: read, set and deleted on either.

    For an application's own `src/core/database.py`, of which this is then all that is needed:

        from reviewpoint_db import default
        from reviewpoint_db.default import *  # tells type checkers the names

        default.forward(__name__)

    A function that the module defines by itself stays its own.

    Args:
        module_name: The module's `__name__`.
    """
    here, there = vars(sys.modules[__name__]), vars(sys.modules[module_name])
    functions = [name for name in _FUNCTION_NAMES if there.get(name, here[name]) is here[name]]
    forward_names(module_name, functions, sys.modules[__name__])
    forward_names(module_name, STATE_NAMES, _state)


async def stop() -> None:
    """Close the connections of the process-wide database; the next use builds another.

    A running application keeps its own, and closes it by itself.
    """
    database = _state.forget_own()
    if database is not None:
        await database.stop()


def get_engine_and_sessionmaker() -> tuple[AsyncEngine, async_sessionmaker[AsyncSession]]:
    """Create and return a new engine and sessionmaker, pooled as the environment says.

    Raises:
        ConfigurationError: The configuration is wrong; the message names field, value and fix.
    """
    _log_worker_info()
    started = time.perf_counter()
    logger.info("Starting engine creation{}", ORIGIN)
    try:
        database = _state.build()
    except Exception as error:
        seconds = time.perf_counter() - started
        logger.error("Failed to create engine after {:.3f}s: {}", seconds, safe_error(error))
        raise
    _log_engine_pool_state(database.engine, "After creation")
    return database.engine, database.sessionmaker


def ensure_engine_initialized() -> None:
    """Create the process-wide engine and sessionmaker if they are not there; once, in any thread.

    Raises:
        ConfigurationError: The configuration is wrong.
    """
    if _state.initialized():
        return
    with _state._creation_lock:  # noqa: SLF001  the original's name for it
        if _state.initialized() or _state.follow_application():
            return
        logger.info("Initializing global engine and sessionmaker")
        _state.adopt(*get_engine_and_sessionmaker())


_sessions: Final = DefaultSessions(_state, ensure_engine_initialized)

get_async_session: Final[ScopeFactory[AsyncSession]] = ScopeFactory(
    "get_async_session",
    """Give a session: rolled back on any error, closed in every case, never committed.

    Works as `async with get_async_session() as session`, which opens a session of its own, and as
    FastAPI's `Depends(get_async_session)`, which uses the session of the request where the
    application was set up with `setup_database`, and a session of its own where it was not.

    Raises:
        DatabaseUnavailableError: No connection could be made in time.
        PoolTimeoutError: All connections were in use for too long.
    """,
    partial(_sessions.watched, _sessions.own),
    partial(_sessions.watched, _sessions.joined),
)


async def db_healthcheck() -> bool:
    """Check if the database answers. Ends within `health_timeout` seconds, and never raises.

    Returns:
        True if the database is reachable, False otherwise.
    """
    _log_worker_info()
    logger.info("Starting healthcheck{}", ORIGIN)
    started = time.perf_counter()
    try:
        ensure_engine_initialized()
        fault = await _fault()
    except Exception as error:  # noqa: BLE001  a health check reports, it never raises
        fault = safe_error(error)
    seconds = time.perf_counter() - started
    if fault is None:
        logger.info("Healthcheck passed in {:.3f}s{}", seconds, ORIGIN)
    else:
        logger.error("Healthcheck failed after {:.3f}s: {}{}", seconds, fault, ORIGIN)
    checked = getattr(_state, "engine", None)
    if checked is not None:
        _log_engine_pool_state(checked, "After healthcheck")
    return fault is None


async def _fault() -> str | None:
    """Check whatever `engine` is at present; say what is wrong with it."""
    database = _state.database_behind("engine")
    if database is None:
        return await _fault_of(_state.engine)
    report = await database.health()
    connection = report.checks[0]
    if connection.latency is not None:
        # The figures of one check, which several callers may share.
        logger.debug("Connection established in {:.3f}s", report.connected_in or 0.0)
        logger.debug("Query answered in {:.3f}s", report.latency or 0.0)
    return connection.detail if report.cause == "unreachable" else None


async def _fault_of(engine: AsyncEngine) -> str | None:
    """Check an engine that was set from outside."""
    check = asyncio.create_task(_select_one(engine))
    _late_checks.add(check)
    check.add_done_callback(_late_checks.discard)
    try:
        await asyncio.wait([check], timeout=_HEALTH_TIMEOUT)
    finally:
        check.cancel()  # the caller may have been cancelled too
    if check.done():
        error = check.exception()
        return None if error is None else safe_error(error)
    return f"no answer within {_HEALTH_TIMEOUT:g} s"


async def _select_one(engine: AsyncEngine) -> None:
    started = time.perf_counter()
    async with engine.connect() as connection:
        connected = time.perf_counter()
        logger.debug("Connection established in {:.3f}s", connected - started)
        await connection.execute(text("SELECT 1"))
        logger.debug("Query answered in {:.3f}s", time.perf_counter() - connected)


def get_connection_debug_info() -> ConnectionDebugInfo:
    """Return the state of the process-wide database's connections.

    The counters are those of the process: all databases behind this module, also former ones.
    """
    _log_worker_info()
    info = connection_debug_info(
        getattr(_state, "engine", None),
        sessionmaker_initialized=getattr(_state, "AsyncSessionLocal", None) is not None,
    )
    info["engine_creation_count"] = getattr(_state, "_engine_creation_count", 0)
    info["session_creation_count"] = getattr(_state, "_session_creation_count", 0)
    info["connection_failures"] = getattr(_state, "_connection_failures", 0)
    return info


forward_names(__name__, STATE_NAMES, _state)
