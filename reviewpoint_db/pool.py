"""ElasticPool: SQLAlchemy's asyncio pool made elastic, fair, verified and observed.

SQLAlchemy's `AsyncAdaptedQueuePool` keeps its numbers (size, max_overflow, timeout) and its
place in the engine; this subclass replaces the queue behind it:

* *Elastic*: a burst connection stays for `idle_timeout` after its return.
* *Fair*: those who wait are served in the order of their arrival.
* *Verified*: a connection that the driver knows to be closed is replaced at checkout, one that
  was idle for `ping_after_idle` is pinged in one round trip, else it is trusted.
* *Observed*: every wait, use, opening and closing is recorded in the `Activity`.

`timeout` is one deadline for queue, connect, verification and retries. While the database does
not accept connections, one waiter probes it, the others wait for its word or their deadline.

The private names of SQLAlchemy that this needs are `_do_get`, `_do_return_conn` and
`_create_connection` (the extension points of a pool) and what `recreate()` copies;
tests/test_pool.py fails when they change.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from contextvars import ContextVar
from typing import Any, Final

from loguru import logger
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_only, greenlet_spawn

from reviewpoint_db.activity import Activity, CloseReason
from reviewpoint_db.backend import Backend
from reviewpoint_db.errors import DatabaseUnavailableError, PoolTimeoutError
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.slots import DeadlinePassed, Slot, Slots
from reviewpoint_db.sqlstate import is_transient_connect

__all__ = ["CLOSE_TIMEOUT", "ElasticPool", "connect_budget"]

#: Seconds that a graceful close may take before the connection is cut.
CLOSE_TIMEOUT: Final = 2.0
#: The share of `max_lifetime` by which connections retire early, so that a fleet does not reconnect at once.
_LIFETIME_JITTER: Final = 0.1
#: Seconds left to an attempt that starts at its deadline: it must fail, not wait for ever.
_SOON: Final = 0.001
#: How many holders the text of a PoolTimeoutError names.
_NAMED_HOLDERS: Final = 5
_STAMP: Final = "reviewpoint_db"
#: Reasons to close a connection that could not be trusted any more.
_UNFIT: Final = ("lost", "ping_failed", "invalidated", "unclean")

#: Seconds that the connect under way may take; read by the engine's `do_connect` listener.
connect_budget: ContextVar[float | None] = ContextVar("reviewpoint_db_connect_budget", default=None)


class _Stamp:
    """What the pool remembers of a connection."""

    __slots__ = ("idle_since", "retire_at")

    def __init__(self, now: float, lifetime: float) -> None:
        self.idle_since = now
        early = random.random() * _LIFETIME_JITTER
        self.retire_at = now + lifetime * (1 - early) if lifetime > 0 else float("inf")


class ElasticPool(AsyncAdaptedQueuePool):
    """A bounded pool for one event loop; made by `create_engine`, read through `Activity`.

    Args:
        creator: SQLAlchemy's connection factory.
        pool_size: Connections that are kept.
        max_overflow: Burst connections beyond `pool_size`; -1 for no limit.
        timeout: Seconds for all of acquiring a connection.
        recycle: Seconds after which a connection is replaced (`max_lifetime`), -1 for never.
        idle_timeout: Seconds after which an idle burst connection is closed.
        ping_after_idle: Seconds of idleness after which a checkout pings.
        connect_timeout: Seconds for one connect or one ping.
        backend: The driver's answers.
        activity: Where everything is recorded.
        **kw: Passed to SQLAlchemy's pool.

    Raises:
        PoolTimeoutError: From a checkout, when nothing became free in time.
        DatabaseUnavailableError: From a checkout, when the database did not accept in time.
    """

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float = 10.0,
        recycle: float = -1,
        idle_timeout: float = 60.0,
        ping_after_idle: float = 0.5,
        connect_timeout: float = 5.0,
        backend: Backend | None = None,
        activity: Activity | None = None,
        **kw: Any,
    ) -> None:
        # recycle is ours: SQLAlchemy's would reconnect after _do_get, outside of the deadline.
        super().__init__(
            creator, pool_size=pool_size, max_overflow=max_overflow, timeout=timeout, **kw
        )
        assert backend is not None  # create_engine gives both
        assert activity is not None
        self._backend = backend
        self._activity = activity
        self._lifetime = recycle
        self._idle_timeout = idle_timeout
        self._ping_after_idle = ping_after_idle
        self._connect_timeout = connect_timeout
        self._slots: Slots[ConnectionPoolEntry] = Slots(
            float("inf") if max_overflow < 0 else pool_size + max_overflow
        )
        self._tickets = itertools.count()
        self._leased: set[ConnectionPoolEntry] = set()
        self._suspect_since = float("-inf")
        self._disposed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._upkeep: asyncio.TimerHandle | None = None
        self._upkeep_interval = max(min(idle_timeout / 4, 5.0), 0.01)
        self._closings: set[asyncio.Task[None]] = set()

    # -- checkout ---------------------------------------------------------------------------

    def _do_get(self) -> ConnectionPoolEntry:
        started = time.perf_counter()
        loop = self._loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        ticket = next(self._tickets)
        lease = self._slots.take()
        queued = lease is None
        try:
            if lease is None:
                lease = self._wait(ticket, deadline)
            record = self._settle(lease, ticket, deadline)
        except asyncio.CancelledError:
            self._activity.acquire_canceled()
            raise
        self._leased.add(record)
        self._activity.acquired(id(record), time.perf_counter() - started, queued=queued)
        return record

    def _wait(self, ticket: int, deadline: float) -> ConnectionPoolEntry | Slot:
        try:
            return await_only(self._slots.wait(ticket, deadline))
        except DeadlinePassed:
            raise self._expired() from self._slots.outage

    def _settle(
        self, lease: ConnectionPoolEntry | Slot, ticket: int, deadline: float
    ) -> ConnectionPoolEntry:
        """Turn a lease into a verified connection, however many attempts the deadline allows."""
        while True:
            if not isinstance(lease, Slot) and self._verified(lease, deadline):
                return lease
            # From here on we hold a slot, be it that of the connection just discarded.
            try:
                record = self._open(deadline)
            except Exception as error:
                if not is_transient_connect(error):
                    self._slots.recovered()
                    self._slots.free()
                    raise _wrapped(error) from error
                self._slots.failed(error)
            except BaseException:
                self._slots.free()
                raise
            else:
                self._slots.recovered()
                return record
            lease = self._wait(ticket, deadline)

    def _verified(self, record: ConnectionPoolEntry, deadline: float) -> bool:
        """Say whether an idle connection may be used; else it is closed and its slot is ours."""
        stamp = _stamp_of(record)
        driver = record.driver_connection
        now = time.monotonic()
        reason: CloseReason
        if driver is None or stamp is None or self._backend.is_closed(driver):
            reason = "lost"
        elif now >= stamp.retire_at:
            reason = "lifetime"
        elif (
            not self._backend.needs_ping
            or (
                now - stamp.idle_since <= self._ping_after_idle
                and stamp.idle_since > self._suspect_since
            )
            or self._ping(record, driver, deadline)
        ):
            return True
        else:
            reason = "ping_failed"
        if driver is not None and reason != "lifetime":
            self._backend.terminate(driver)
        record.invalidate()
        self._activity.connection_closed(reason)
        return False

    def _ping(self, record: ConnectionPoolEntry, driver: Any, deadline: float) -> bool:
        timeout = max(min(self._connect_timeout, deadline - self._running_loop.time()), _SOON)
        self._activity.pinged()
        try:
            await_only(self._backend.ping(driver, timeout))
        except Exception as error:  # noqa: BLE001 - whatever a ping raises, the connection is unfit
            logger.debug("A connection failed its ping and is replaced: {}", safe_error(error))
            return False
        except BaseException:  # cancelled, and the answer to the ping may still arrive
            self._backend.terminate(driver)
            record.invalidate()
            self._activity.connection_closed("ping_failed")
            self._slots.free()
            raise
        return True

    def _open(self, deadline: float) -> ConnectionPoolEntry:
        """Open a connection in a slot that is already counted."""
        started = time.perf_counter()
        remaining = max(deadline - self._running_loop.time(), _SOON)
        token = connect_budget.set(min(self._connect_timeout, remaining))
        try:
            record = self._create_connection()
        except Exception as error:
            self._activity.connection_failed(safe_error(error))
            raise
        finally:
            connect_budget.reset(token)
        assert record.record_info is not None
        record.record_info[_STAMP] = _Stamp(time.monotonic(), self._lifetime)
        self._activity.connection_opened(time.perf_counter() - started)
        return record

    def _expired(self) -> Exception:
        self._activity.acquire_timed_out()
        waiting = self._slots.waiting
        if self._slots.outage is not None:
            return DatabaseUnavailableError(
                f"Database {self._activity.name!r} accepted no connection within "
                f"{self._timeout:g} s (last attempt: {safe_error(self._slots.outage)}; {waiting} waiting). "
                "It is retried by itself; check that the server runs and the URL is right."
            )
        held = "; ".join(str(holder) for holder in self._activity.holders()[:_NAMED_HOLDERS])
        error = PoolTimeoutError(
            f"No connection of database {self._activity.name!r} became free within "
            f"{self._timeout:g} s: all {self._slots.total} (pool.size {self.size()} + pool.max_overflow "
            f"{self._max_overflow}) are in use, {waiting} waiting. Held by: {held or 'nobody'}. "
            "Hold sessions for a shorter time (no slow calls inside a transaction), fix the leak, "
            "or raise pool.size."
        )
        self._activity.emit("db.pool_exhausted", message=str(error))
        return error

    # -- return -----------------------------------------------------------------------------

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            self._take_back(record)
        elif not self._running_loop.is_closed():  # the garbage collector runs in any thread
            self._running_loop.call_soon_threadsafe(self._take_back, record)

    def _take_back(self, record: ConnectionPoolEntry) -> None:
        self._activity.released(id(record))
        self._leased.discard(record)
        stamp = _stamp_of(record)
        driver = record.driver_connection
        if driver is None or stamp is None:
            self._activity.connection_closed("invalidated")
            self._slots.free()
        elif self._backend.is_closed(driver):
            self._close_soon(record, "lost")
        elif self._backend.in_transaction(driver):
            self._backend.terminate(driver)
            self._close_soon(record, "unclean")
        elif self._disposed:
            self._close_soon(record, "disposed")
        elif (now := time.monotonic()) >= stamp.retire_at:
            self._close_soon(record, "lifetime")
        else:
            stamp.idle_since = now
            if self._slots.offer(record) and self._upkeep is None:
                self._schedule_upkeep()

    def _schedule_upkeep(self) -> None:
        self._upkeep = self._running_loop.call_later(self._upkeep_interval, self._maintain)

    def _maintain(self) -> None:
        """Retire what is idle for too long, too old or dead; runs while anything is idle."""
        self._upkeep = None
        now = time.monotonic()
        kept: deque[ConnectionPoolEntry] = deque()
        total = self._slots.total
        for record in self._slots.idle:  # the longest idle first
            stamp, driver = _stamp_of(record), record.driver_connection
            if stamp is None or driver is None or self._backend.is_closed(driver):
                self._close_soon(record, "lost")
            elif now >= stamp.retire_at:
                self._close_soon(record, "lifetime")
            elif total > self.size() and now - stamp.idle_since >= self._idle_timeout:
                total -= 1
                self._close_soon(record, "idle")
            else:
                kept.append(record)
        self._slots.idle = kept
        if kept:
            self._schedule_upkeep()

    def _close_soon(self, record: ConnectionPoolEntry, reason: CloseReason) -> None:
        """Close a connection outside of anybody's request; its slot is free afterwards."""
        self._activity.connection_closed(reason)
        task = self._running_loop.create_task(self._close(record))
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)

    async def _close(self, record: ConnectionPoolEntry) -> None:
        try:
            if record.driver_connection is not None:
                await self._backend.close(record.driver_connection, CLOSE_TIMEOUT)
            await greenlet_spawn(record.invalidate)
        finally:
            self._slots.free()

    # -- the whole pool -----------------------------------------------------------------------

    def suspect(self) -> None:
        """Have every idle connection pinged before its next use, because one was lost."""
        self._suspect_since = time.monotonic()

    def dispose(self) -> None:
        """Close the idle connections within `CLOSE_TIMEOUT`; late returns are closed as well."""
        self._disposed = True
        if self._upkeep is not None:
            self._upkeep.cancel()
            self._upkeep = None
        for record in self._slots.idle:
            self._close_soon(record, "disposed")
        self._slots.idle.clear()
        if self._closings:
            await_only(asyncio.wait(self._closings))

    def terminate(self) -> None:
        """Cut every connection that is still out, without waiting for the server."""
        for record in tuple(self._leased):
            if record.driver_connection is not None:
                self._backend.terminate(record.driver_connection)

    def abandon(self) -> None:
        """Cut all connections of a pool whose event loop is closed."""
        for record in (*self._slots.idle, *self._leased):
            if record.driver_connection is not None:
                self._backend.abandon(record.driver_connection)
        self._slots.idle.clear()
        self._leased.clear()
        self._slots.total = 0

    def recreate(self) -> ElasticPool:
        """Return an empty pool with the same settings and the same `Activity`."""
        return self.__class__(
            self._creator,
            pool_size=self.size(),
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            recycle=self._lifetime,
            idle_timeout=self._idle_timeout,
            ping_after_idle=self._ping_after_idle,
            connect_timeout=self._connect_timeout,
            backend=self._backend,
            activity=self._activity,
            pre_ping=self._pre_ping,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    # -- gauges -------------------------------------------------------------------------------

    def checkedin(self) -> int:
        """Return the number of idle connections."""
        return len(self._slots.idle)

    def checkedout(self) -> int:
        """Return the number of connections that are in use."""
        return len(self._leased)

    def overflow(self) -> int:
        """Return the number of open connections beyond `size()`; never negative."""
        return max(0, self._slots.total - self.size())

    def invalidated(self) -> int:
        """Return how many connections were closed because they could not be trusted any more."""
        closed = self._activity.snapshot().closed
        return sum(closed.get(reason, 0) for reason in _UNFIT)

    def total(self) -> int:
        """Return the number of connections that are open, being opened or being closed."""
        return self._slots.total

    def waiting(self) -> int:
        """Return the number of tasks that wait for a connection."""
        return self._slots.waiting

    @property
    def full_since(self) -> float | None:
        """Monotonic seconds since which neither a connection nor a slot was free, or None."""
        return self._slots.full_since

    def outage(self) -> str | None:
        """Return why the database accepts no connection at present, or None."""
        return safe_error(self._slots.outage) if self._slots.outage is not None else None

    @property
    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the first checkout ran in; a pool serves one loop."""
        assert self._loop is not None
        return self._loop


def _stamp_of(record: ConnectionPoolEntry) -> _Stamp | None:
    info = record.record_info
    return info.get(_STAMP) if info else None


def _wrapped(error: Exception) -> Exception:
    """Wrap a socket's bare error; the driver's own are wrapped by SQLAlchemy."""
    if isinstance(error, OSError):
        return DatabaseUnavailableError(
            f"The database cannot be reached: {safe_error(error)}. "
            "Check the host, the port and the TLS settings of the URL."
        )
    return error
