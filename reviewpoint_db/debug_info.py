"""The state of a database's connections as one flat dictionary, for people who look for a fault."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, TypedDict

from reviewpoint_db.redaction import safe_error

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from reviewpoint_db.activity import Activity

__all__ = (
    "ConnectionDebugInfo",
    "connection_debug_info",
    "pool_gauges",
    "pool_invalidated",
    "worker_id",
)


class ConnectionDebugInfo(TypedDict, total=False):
    """What is known of the connections. All keys are there but `pool_error`, which names a fault.

    The pool's values are None while there is no engine.
    """

    worker_id: str
    process_id: int
    thread_id: int
    engine_creation_count: int
    session_creation_count: int
    connection_failures: int
    engine_initialized: bool
    sessionmaker_initialized: bool
    pool_size: int | None
    pool_checked_out: int | None
    pool_checked_in: int | None
    pool_overflow: int | None
    pool_invalidated: int | None
    pool_error: str


def worker_id() -> str:
    """Name this process among pytest-xdist's workers; "main" where there are none."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


def pool_gauges(pool: Any) -> dict[str, int]:
    """Read the gauges that SQLAlchemy's pools have.

    Returns:
        `size`, `checked_out`, `checked_in`, and `overflow`: connections beyond the size, never
        negative (SQLAlchemy's own is, on a pool that is not full).

    Raises:
        AttributeError: The pool keeps no connections (NullPool, StaticPool), so it has no gauges.
    """
    return {
        "size": pool.size(),
        "checked_out": pool.checkedout(),
        "checked_in": pool.checkedin(),
        "overflow": max(0, pool.overflow()),
    }


def pool_invalidated(pool: Any) -> int | None:
    """Read how many connections were closed as unfit; None where a pool does not count them."""
    count = getattr(pool, "invalidated", None)
    return None if count is None else count()


def connection_debug_info(
    engine: AsyncEngine | None,
    activity: Activity | None = None,
    *,
    sessionmaker_initialized: bool | None = None,
) -> ConnectionDebugInfo:
    """Describe an engine and what was done with it.

    Args:
        engine: None while there is none yet.
        activity: The counters of its database; without one they are 0.
        sessionmaker_initialized: None takes it to be there together with the engine.
    """
    initialized = engine is not None
    info = ConnectionDebugInfo(
        worker_id=worker_id(),
        process_id=os.getpid(),
        thread_id=threading.get_ident(),
        engine_creation_count=activity.engines_created if activity else 0,
        session_creation_count=activity.sessions_created if activity else 0,
        connection_failures=activity.connection_failures if activity else 0,
        engine_initialized=initialized,
        sessionmaker_initialized=(
            initialized if sessionmaker_initialized is None else sessionmaker_initialized
        ),
        pool_size=None,
        pool_checked_out=None,
        pool_checked_in=None,
        pool_overflow=None,
        pool_invalidated=None,
    )
    if engine is None:
        return info
    try:
        gauges = pool_gauges(engine.pool)
        info["pool_invalidated"] = pool_invalidated(engine.pool)
    except AttributeError:
        info["pool_error"] = f"{type(engine.pool).__name__} keeps no connections and has no gauges"
        return info
    except Exception as error:  # noqa: BLE001  whoever looks for a fault must not meet another one
        info["pool_error"] = safe_error(error)
        return info
    info["pool_size"] = gauges["size"]
    info["pool_checked_out"] = gauges["checked_out"]
    info["pool_checked_in"] = gauges["checked_in"]
    info["pool_overflow"] = gauges["overflow"]
    return info
