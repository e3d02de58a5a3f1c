"""What a checkout raises, and the texts that are read at night: who is to blame, and what to do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from reviewpoint_db.driver_errors import is_of_asyncpg
from reviewpoint_db.errors import DatabaseUnavailableError, PoolTimeoutError
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.tls_errors import connect_fix

if TYPE_CHECKING:
    from reviewpoint_db.pool import ElasticPool

__all__ = ["exhausted", "no_answer", "refused"]

#: How many holders the text of a PoolTimeoutError names.
_NAMED_HOLDERS: Final = 5


def no_answer(
    pool: ElasticPool, outage: Exception | None, waiting: int
) -> DatabaseUnavailableError:
    """Return the error of one for whom no connection could be opened in time.

    Args:
        pool: Where he waited.
        outage: Why the last attempt failed, if it did.
        waiting: How many waited, he included.
    """
    last = f"last attempt: {safe_error(outage)}" if outage else "no answer"
    return DatabaseUnavailableError(
        f"Database {pool.activity.name!r} accepted no connection within "
        f"{pool.timeout():g} s ({last}; {_queue(waiting)}). "
        "It is retried by itself; check that the server runs and the URL is right."
    )


def exhausted(pool: ElasticPool, waited: float, waiting: int) -> PoolTimeoutError:
    """Return the error of one who waited while all connections were in use.

    Args:
        pool: Where he waited.
        waited: For how many seconds; fewer than the pool's timeout where `queue_target` refused him.
        waiting: How many waited, he included.
    """
    within = f"became free within {pool.timeout():g} s"
    if pool.queue_target and waited < pool.timeout():
        within = f"would become free in time (pool.queue_target, {waited:.2g} s waited)"
    now = time.monotonic()
    oldest = pool.activity.held()[:_NAMED_HOLDERS]
    held = "; ".join(str(holder.snapshot(now)) for holder in oldest)
    return PoolTimeoutError(
        f"No connection of database {pool.activity.name!r} {within}"
        f": all {pool.total()} (pool.size {pool.size()} + pool.max_overflow "
        f"{pool.max_overflow}) are in use; {_queue(waiting)}. Held by: {held or 'nobody'}. "
        "Hold sessions for a shorter time (no slow calls inside a transaction), fix the leak, "
        "or raise pool.size."
    )


def _queue(waiting: int) -> str:
    return (
        f"{waiting} were waiting, this one included" if waiting > 1 else "nobody else was waiting"
    )


def refused(error: Exception, dialect: Any) -> Exception:
    """Return the error of a refused connection as SQLAlchemy would name it."""
    if isinstance(error, OSError):
        return DatabaseUnavailableError(
            f"The database cannot be reached: {safe_error(error)}. {connect_fix(error)}."
        )
    if is_of_asyncpg(error):
        # SQLAlchemy 2.0 lets them through as they are; as the DBAPI's, the engine wraps them.
        named: Exception = dialect.loaded_dbapi.OperationalError(str(error))
        return named
    return error
