"""What the pool knows of one connection, and how it is opened within a bound."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.pool import ConnectionPoolEntry, Pool
from sqlalchemy.util import greenlet_spawn

from reviewpoint_db.activity import Holder
from reviewpoint_db.backend import Backend
from reviewpoint_db.driver_errors import code_of, is_of_driver, wrapped

__all__ = [
    "CLOSE_TIMEOUT",
    "RECORD_KEY",
    "Pooled",
    "holder_of",
    "noting",
    "open_record",
    "retire_softly",
]

#: Seconds that a graceful close may take before the connection is cut.
CLOSE_TIMEOUT: Final = 2.0
#: The share of `max_lifetime` by which connections retire early, so that a fleet does not reconnect at once.
_LIFETIME_JITTER: Final = 0.1
#: Under which SQLAlchemy's record of a connection has its `Pooled`, in `record_info`.
RECORD_KEY: Final = "reviewpoint_db"

#: Where `noting` leaves what the connect under way has made.
_made: ContextVar[list[Any] | None] = ContextVar("reviewpoint_db_made", default=None)


class Pooled:
    """A connection of the pool: SQLAlchemy's record of it, the driver's own, and our notes.

    Times are monotonic seconds.
    """

    __slots__ = ("adapted", "driver", "holder", "idle_since", "lifetime", "record", "retire_at")

    def __init__(self, record: ConnectionPoolEntry, lifetime: float) -> None:
        self.record = record
        self.lifetime = lifetime
        #: Who has it, while it is out.
        self.holder: Holder | None = None
        self.look()

    def look(self) -> None:
        """Read the connection from the record, in which SQLAlchemy may have replaced it."""
        self.idle_since = time.monotonic()
        early = random.random() * _LIFETIME_JITTER
        self.retire_at = (
            self.idle_since + self.lifetime * (1 - early) if self.lifetime > 0 else float("inf")
        )
        self.adapted = self.record.dbapi_connection
        self.driver: Any = self.record.driver_connection
        assert self.record.record_info is not None
        self.record.record_info[RECORD_KEY] = self

    @property
    def busy(self) -> bool:
        """Whether a statement is under way; SQLAlchemy's adapters have a lock for that. No I/O."""
        lock = getattr(self.adapted, "_execute_mutex", None)
        return lock is not None and lock.locked()


def retire_softly(_connection: Any, record: ConnectionPoolEntry, _error: object) -> None:
    """Replace a connection at its return: for the pool's event `soft_invalidate`.

    SQLAlchemy would replace it after the next checkout, outside of the pool's deadline.
    """
    pooled: Pooled | None = (record.record_info or {}).get(RECORD_KEY)
    if pooled is not None:
        pooled.retire_at = float("-inf")


def noting(create: Callable[[ConnectionPoolEntry], Any]) -> Any:
    """Have a pool's creator note the connections that it makes, for `open_record`."""

    def create_and_note(record: ConnectionPoolEntry) -> Any:
        connection = create(record)
        made = _made.get()
        if made is not None:
            made.append(connection)
        return connection

    return create_and_note


async def open_record(pool: Pool, backend: Backend, timeout: float) -> ConnectionPoolEntry:
    """Open a connection as the pool's engine does, but without the pool's counting it.

    Args:
        pool: Whose settings and listeners are used.
        backend: The driver's `Backend`.
        timeout: Seconds, for the connect and all that listeners do with the new connection.

    Raises:
        TimeoutError: It took longer.
        ConnectionResetError: The connection was lost again while it was set up.
    """
    made: list[Any] = []
    token = _made.set(made)
    loop = asyncio.get_running_loop()

    def expire() -> None:
        # Cut first: SQLAlchemy would close gracefully what is cancelled, for two seconds more.
        for connection in made:
            backend.terminate(connection.driver_connection)
        limit.reschedule(loop.time())

    timer = loop.call_later(timeout, expire)
    try:
        async with asyncio.timeout(None) as limit:
            # SQLAlchemy has no public name for this; `_do_get` of its own pools calls it.
            return await greenlet_spawn(pool._create_connection)  # noqa: SLF001
    except BaseException as error:
        # SQLAlchemy 2.0 leaves a connection open whose listeners failed or were cancelled.
        for connection in made:
            backend.terminate(connection.driver_connection)
            await backend.close(connection.driver_connection, CLOSE_TIMEOUT)
        if made and _is_of_client_side(error):
            raise ConnectionResetError("the connection was lost while it was set up") from error
        raise
    finally:
        timer.cancel()
        _made.reset(token)


def _is_of_client_side(error: BaseException) -> bool:
    """Whether the driver failed by itself: once logged in, that is "connection is closed"."""
    return code_of(error) is None and any(is_of_driver(each) for each in wrapped(error))


def holder_of(connection: Connection) -> Holder | None:
    """Return who has a connection of our pool out; None for other pools, and when it is lost."""
    if connection.closed or connection.invalidated:
        return None
    info = connection.connection.record_info
    pooled: Pooled | None = info.get(RECORD_KEY) if info else None
    return pooled.holder if pooled is not None else None
