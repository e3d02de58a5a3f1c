"""A database layer for Litestar, Starlette and FastAPI that is right by default.

    app = Litestar(route_handlers=[...], plugins=[ReviewPointDBPlugin()])

Here are the names for any framework, and the original module's. The state among the latter
(`engine`, `AsyncSessionLocal` and the counters) lives in `reviewpoint_db.default`: reading, setting
and deleting it here does so there. Frameworks are imported only with their own module:
`reviewpoint_db.litestar`, `reviewpoint_db.starlette`, `reviewpoint_db.fastapi`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reviewpoint_db import default as _default
from reviewpoint_db import logs
from reviewpoint_db.activity import Activity, ActivitySnapshot
from reviewpoint_db.after_commit import after_commit
from reviewpoint_db.config import DatabaseConfig, Environment, PoolConfig, normalize_url
from reviewpoint_db.database import Database
from reviewpoint_db.default import (
    ConnectionDebugInfo,
    configure,
    db_healthcheck,
    ensure_engine_initialized,
    get_async_session,
    get_connection_debug_info,
    get_engine_and_sessionmaker,
)
from reviewpoint_db.default_log import log_pool_state as _log_engine_pool_state
from reviewpoint_db.default_log import log_worker_info as _log_worker_info
from reviewpoint_db.errors import (
    CommitOutcomeUnknownError,
    ConfigurationError,
    DatabaseUnavailableError,
    PoolTimeoutError,
    QueryTimeoutError,
    ReadOnlySessionError,
    ReviewPointDBError,
    SessionClosedError,
    UnavailableError,
)
from reviewpoint_db.health import CheckResult, HealthReport, check_health
from reviewpoint_db.transaction import CommitMode, UnitOfWork

if TYPE_CHECKING:
    import threading

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

    from reviewpoint_db.litestar import ReviewPointDBPlugin

    engine: AsyncEngine | None
    AsyncSessionLocal: async_sessionmaker[AsyncSession] | None
    _engine_creation_count: int
    _session_creation_count: int
    _connection_failures: int
    _creation_lock: threading.Lock

__all__ = [
    "Activity",
    "ActivitySnapshot",
    "AsyncSessionLocal",
    "CheckResult",
    "CommitMode",
    "CommitOutcomeUnknownError",
    "ConfigurationError",
    "ConnectionDebugInfo",
    "Database",
    "DatabaseConfig",
    "DatabaseUnavailableError",
    "Environment",
    "HealthReport",
    "PoolConfig",
    "PoolTimeoutError",
    "QueryTimeoutError",
    "ReadOnlySessionError",
    "ReviewPointDBError",
    "ReviewPointDBPlugin",
    "SessionClosedError",
    "UnavailableError",
    "UnitOfWork",
    "_connection_failures",
    "_creation_lock",
    "_engine_creation_count",
    "_log_engine_pool_state",
    "_log_worker_info",
    "_session_creation_count",
    "after_commit",
    "check_health",
    "configure",
    "db_healthcheck",
    "engine",
    "ensure_engine_initialized",
    "get_async_session",
    "get_connection_debug_info",
    "get_engine_and_sessionmaker",
    "normalize_url",
]

#: Names whose modules import a framework, and so are imported only when they are asked for.
_LAZY: Final = {"ReviewPointDBPlugin": "reviewpoint_db.litestar"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_default.forward(__name__)
# As loguru asks of libraries: silent until the application, or our plugin for it, says otherwise.
logs.disable()
