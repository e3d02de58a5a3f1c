"""ElasticPool: SQLAlchemy's asyncio pool made elastic, fair, verified and observed.

SQLAlchemy's `AsyncAdaptedQueuePool` keeps its numbers (size, max_overflow, timeout) and its
place in the engine; this subclass replaces the queue behind it:

* *Elastic*: a burst connection stays for `idle_timeout` after its return.
* *Fair*: those who wait are served in the order of their arrival.
* *Verified*: a connection that the driver knows to be closed or in use (a transaction, a statement)
  is replaced at checkout, one that was idle for `ping_after_idle` is pinged in one round trip, else
  it is trusted.
* *Observed*: every wait, use, opening and closing is recorded in the `Activity`.

`timeout` is one deadline for queue, connect, verification and retries. `slots.py` decides who gets a
connection next; `supply.py` opens and closes connections in tasks of its own, so that whoever waits
can be cancelled at any moment.

The private names of SQLAlchemy that this needs are `_do_get`, `_do_return_conn`,
`_create_connection` and `_invoke_creator` (the extension points of a pool), the lock of an adapted
connection (`Pooled.busy`) and what `recreate()` copies; tests/test_pool.py fails when they change.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any, Final

from loguru import logger
from sqlalchemy import event
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import await_only

from reviewpoint_db.activity import Activity, Holder
from reviewpoint_db.backend import Backend
from reviewpoint_db.errors import DatabaseUnavailableError
from reviewpoint_db.pool_errors import exhausted, no_answer, refused
from reviewpoint_db.pooled import CLOSE_TIMEOUT, Pooled, noting, retire_softly
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.running_loop import running_loop
from reviewpoint_db.slots import DeadlinePassed
from reviewpoint_db.supply import UNFIT, Supply

__all__ = ["CLOSE_TIMEOUT", "ElasticPool"]

#: Seconds left to a ping that starts at its deadline: it must fail, not wait for ever.
_SOON: Final = 0.001
#: Seconds between two replacements of all connections.
_EPISODE: Final = 1.0


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
        queue_target: Seconds of waiting at which an overload begins; 0 for never.
        backend: The driver's `Backend`.
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
        queue_target: float = 0.0,
        backend: Backend | None = None,
        activity: Activity | None = None,
        **kw: Any,
    ) -> None:
        # recycle is ours: SQLAlchemy's would reconnect after _do_get, outside of the deadline.
        super().__init__(
            creator, pool_size=pool_size, max_overflow=max_overflow, timeout=timeout, **kw
        )
        self._invoke_creator = noting(self._invoke_creator)
        if "_dispatch" not in kw:  # else recreate() brings it along
            event.listen(self, "soft_invalidate", retire_softly)
        assert backend is not None  # create_engine gives both
        assert activity is not None
        self._backend = backend
        self.activity = activity
        self._ping_after_idle = ping_after_idle if backend.needs_ping else float("inf")
        self._supply = Supply(
            self,
            size=pool_size,
            limit=float("inf") if max_overflow < 0 else pool_size + max_overflow,
            lifetime=recycle,
            idle_timeout=idle_timeout,
            connect_timeout=connect_timeout,
            backend=backend,
            activity=activity,
            queue_target=queue_target,
        )
        self.queue_target = queue_target
        self._slots = self._supply.slots
        self._tickets = itertools.count()
        self._leased: dict[ConnectionPoolEntry, Pooled] = {}
        self._suspect_since = float("-inf")
        #: Since when it was full as listeners were last told of it.
        self._told_full_since: float | None = None

    # -- checkout ---------------------------------------------------------------------------

    def _do_get(self) -> ConnectionPoolEntry:
        self._supply.loop = asyncio.get_running_loop()
        started = time.monotonic()
        pooled = self._slots.take()
        queued = pooled is None
        if pooled is not None and self._trusted(pooled, started):
            holder = Holder(started, pooled.driver, self._backend, self.activity.name)
        else:
            holder = Holder(started, database=self.activity.name)
            self.activity.waiting(holder)
            try:
                pooled = self._acquire(pooled)
            except BaseException:
                self.activity.waits_no_more(holder)
                raise
            holder.got(time.monotonic(), pooled.driver, self._backend)
        self._leased[pooled.record] = pooled
        pooled.holder = holder
        self.activity.acquired(holder, holder.since - started, queued=queued)
        return pooled.record

    def _trusted(self, pooled: Pooled, now: float) -> bool:
        """Whether a connection may be used without a ping."""
        return now - pooled.idle_since <= self._ping_after_idle and self._sound(pooled, now)

    def _sound(self, pooled: Pooled, now: float) -> bool:
        """Whether a connection is not too old, not suspect, not closed, and not in use."""
        return (
            now < pooled.retire_at
            and pooled.idle_since > self._suspect_since
            and not self._backend.is_closed(pooled.driver)
            and self._backend.lost_file(pooled.driver) is None
            and not self._unclean(pooled)
        )

    def _unclean(self, pooled: Pooled) -> bool:
        """Whether somebody's work is still on a connection: a transaction, or a statement."""
        return self._backend.in_transaction(pooled.driver) or pooled.busy

    def _acquire(self, pooled: Pooled | None) -> Pooled:
        """Return a verified connection, after as many attempts as the deadline allows."""
        arrived = asyncio.get_running_loop().time()
        deadline = arrived + self._timeout
        ticket = next(self._tickets)
        try:
            while pooled is None or not self._verified(pooled, deadline):
                pooled = await_only(self._slots.wait(ticket, deadline))
                if self._sound(pooled, time.monotonic()):
                    break  # somebody had it a moment ago, however long the loop took to say so
        except DeadlinePassed as passed:
            raise self._expired(arrived, passed.waiting) from self._slots.outage
        except asyncio.CancelledError:
            self.activity.acquire_canceled()
            raise
        except Exception as error:
            raise refused(error, self._dialect) from error
        return pooled

    def _verified(self, pooled: Pooled, deadline: float) -> bool:
        """Return whether a connection may be used; else close it, which frees its slot."""
        if self._backend.is_closed(pooled.driver):
            self._supply.discard(pooled, "lost")
        elif (path := self._backend.lost_file(pooled.driver)) is not None:
            self._supply.discard(pooled, "lost")
            if self._replace_all():
                self.activity.file_lost(path)
        elif self._unclean(pooled):
            self._supply.discard(pooled, "unclean")
        elif time.monotonic() >= pooled.retire_at:
            self._supply.close_soon(pooled, "lifetime")
        else:
            return not self._backend.needs_ping or self._ping(pooled, deadline)
        return False

    def _ping(self, pooled: Pooled, deadline: float) -> bool:
        timeout = max(
            min(self._supply.connect_timeout, deadline - asyncio.get_running_loop().time()), _SOON
        )
        self.activity.pinged()
        try:
            await_only(self._backend.ping(pooled.driver, timeout))
        except Exception as error:  # noqa: BLE001 - whatever a ping raises, the connection is unfit
            logger.debug("A connection failed its ping and is replaced: {}", safe_error(error))
            self._supply.discard(pooled, "ping_failed")
            if isinstance(error, TimeoutError):  # a frozen server has the others too
                self.retire(f"a ping was not answered within {timeout:g} s")
            return False
        except BaseException:  # cancelled, and the answer to the ping may still arrive
            self._supply.discard(pooled, "ping_failed")
            raise
        return True

    def _expired(self, arrived: float, waiting: int) -> Exception:
        self.activity.acquire_timed_out()
        outage = self._slots.outage
        # When connects hang, or nobody has a connection, the pool is not what is full.
        # An overload refuses who has come just now: how long they waited says nothing of a connect.
        now = asyncio.get_running_loop().time()
        hanging = any(now - begun >= self._timeout / 2 for begun in self._supply.openings.values())
        if outage is not None or hanging or not self._leased:
            return no_answer(self, outage, waiting)
        error = exhausted(self, now - arrived, waiting)
        full_since = self._slots.full_since
        if full_since is None or full_since != self._told_full_since:
            self._told_full_since = full_since
            self.activity.emit("db.pool_exhausted", message=str(error))
        return error

    # -- return -----------------------------------------------------------------------------

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        loop = self._supply.loop
        assert loop is not None  # of its checkout
        if loop is running_loop():
            self._take_back(record)
            return
        try:
            loop.call_soon_threadsafe(self._take_back, record)  # the garbage collector's thread
        except RuntimeError:  # that loop is closed
            if record in self._leased:
                self._supply.abandon_one(self._leased.pop(record))

    def _take_back(self, record: ConnectionPoolEntry) -> None:
        now = time.monotonic()
        pooled = self._leased.pop(record, None)
        if pooled is None or pooled.holder is None:
            return  # returned twice, or to a pool that was abandoned meanwhile
        self.activity.released(pooled.holder, now)
        pooled.holder = None
        if record.dbapi_connection is not pooled.adapted:
            pooled.look()
        if pooled.adapted is None:
            self.activity.connection_closed("invalidated")
            self._slots.free()
        elif self._backend.is_closed(pooled.driver):
            self._supply.discard(pooled, "lost")
        elif self._unclean(pooled):
            self._supply.discard(pooled, "unclean")
        elif now >= pooled.retire_at:
            self._supply.close_soon(pooled, "lifetime")
        else:
            pooled.idle_since = now
            self._slots.offer(pooled)

    # -- the whole pool -----------------------------------------------------------------------

    def retire(self, why: str) -> None:
        """Replace all that was opened until now: another server may be the right one from now on."""
        if self._replace_all():
            logger.warning(
                "The connections of database {!r} are replaced, since the server may no longer be "
                "the right one: {}",
                self.activity.name,
                why,
            )

    def _replace_all(self) -> bool:
        """Replace the idle at once, the others at their return.

        Once a second at most: where every server refuses, as during a failover, connecting anew for
        each request would help nobody.
        """
        now = time.monotonic()
        self._suspect_since = now
        if now - self._supply.retired_at < _EPISODE:
            return False
        for pooled in self._leased.values():
            pooled.retire_at = float("-inf")
        self._supply.retire()
        return True

    def suspect(self) -> None:
        """Have every idle connection pinged before its next use, because one was lost."""
        self._suspect_since = time.monotonic()

    def dispose(self) -> None:
        """Close the idle connections within `CLOSE_TIMEOUT`; late returns are closed as well."""
        if self._supply.loop is not None and self._supply.loop.is_closed():
            self.abandon()
        elif self._supply.dispose():
            await_only(self._supply.end_tasks())

    def dismiss(self, why: str) -> None:
        """Cut the connections in use and fail the waiters: they can use another server."""
        self.suspect()
        self.terminate()
        self._slots.dismiss(lambda: DatabaseUnavailableError(why))

    def terminate(self) -> None:
        """Cut every connection that is still out, without waiting for the server."""
        for pooled in self._leased.values():
            self._backend.terminate(pooled.driver)

    def abandon(self) -> None:
        """Cut all connections of a pool whose event loop is closed."""
        for pooled in self._leased.values():
            self._supply.abandon_one(pooled)
        self._leased.clear()
        self._supply.abandon()

    def recreate(self) -> ElasticPool:
        """Return an empty pool with the same settings and the same `Activity`."""
        return self.__class__(
            self._creator,
            pool_size=self.size(),
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            recycle=self._supply.lifetime,
            idle_timeout=self._supply.idle_timeout,
            ping_after_idle=self._ping_after_idle,
            connect_timeout=self._supply.connect_timeout,
            queue_target=self.queue_target,
            backend=self._backend,
            activity=self.activity,
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
        closed = self.activity.closed
        return sum(closed.get(reason, 0) for reason in UNFIT)

    def total(self) -> int:
        """Return the number of connections that are open, being opened or being closed."""
        return self._slots.total

    @property
    def limit(self) -> float:
        """How many connections may be open; infinity where there is no limit."""
        return self._slots.limit

    @property
    def max_overflow(self) -> int:
        """How many may be open beyond `size()`; -1 for no limit."""
        return self._max_overflow

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
