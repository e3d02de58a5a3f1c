"""Slots: the fair queue behind the pool. It decides who gets a connection, and when one is opened.

A task that finds no idle connection waits, and waiters are served in the order of their arrival, by a
connection that was returned or by one that was opened meanwhile. An opening belongs to the pool and
not to a waiter: it goes on when the waiter is cancelled or its deadline passes.

A *slot* is the right to have one connection open, and there are `limit` of them. While the database
accepts no connections, one slot is used at a time, after a pause that doubles: the probe.

Everything here runs in one event loop and never awaits but in `wait`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Final, Generic, TypeVar

from reviewpoint_db.standing import Standing

__all__ = ["DeadlinePassed", "Slots"]

C = TypeVar("C")

#: Seconds between two attempts to connect during an outage, before jitter; doubled up to the longest.
_FIRST_PAUSE: Final = 0.05
_DOUBLINGS: Final = 5
_LONGEST_PAUSE: Final = 1.0


class DeadlinePassed(Exception):  # noqa: N818 - the pool turns it into the error that users see
    """Nothing became free in time.

    Args:
        waiting: How many waited until then, this one included.
    """

    def __init__(self, waiting: int) -> None:
        super().__init__()
        self.waiting = waiting


class _Waiter(Generic[C]):
    """A waiting task: the ticket of its arrival, and the connection or error that it is woken with."""

    __slots__ = ("connection", "deadline", "error", "since", "ticket", "woken")

    def __init__(
        self, ticket: int, woken: asyncio.Future[None], since: float, deadline: float
    ) -> None:
        self.since = since
        self.deadline = deadline
        self.ticket = ticket
        self.woken = woken
        self.connection: C | None = None
        self.error: Exception | None = None

    def fail(self, error: Exception) -> None:
        self.error = error
        self.woken.set_result(None)

    def expire(self, waiting: int) -> None:
        if not self.woken.done():
            self.fail(DeadlinePassed(waiting))


class Slots(Generic[C]):
    """The slots of one pool, in use, idle or free, and the queue for them.

    Args:
        limit: How many connections may be open; `float("inf")` for no limit.
        open_one: Begins to open a connection and returns at once. It reports by `opened`,
            `failed`, `refused` or `gave_up`.
        queue_target: Seconds of waiting; while all wait longer, late ones are refused (`Standing`). 0: none.
        kept: Called when a connection has become idle.

    Example:
        >>> connection = slots.take() or await slots.wait(ticket, deadline)
        >>> slots.offer(connection)     # it comes back
        >>> slots.free()                # or it was closed
    """

    def __init__(
        self,
        limit: float,
        open_one: Callable[[], None],
        queue_target: float = 0.0,
        *,
        kept: Callable[[], None] = lambda: None,
    ) -> None:
        self.limit = limit
        #: Connections that are open, being opened or being closed.
        self.total = 0
        #: Connections that are being opened.
        self.opening = 0
        #: Connections that nobody uses; the longest idle first.
        self.idle: deque[C] = deque()
        #: Monotonic seconds since which neither a connection nor a slot was free, or None.
        self.full_since: float | None = None
        #: Why the last attempt to connect failed, while none succeeds.
        self.outage: Exception | None = None
        #: Grows with each `forget()`: what was begun before does not report any more.
        self.generation = 0
        self._open_one = open_one
        self._kept = kept
        self._standing = Standing(queue_target) if queue_target else None
        self._waiters: deque[_Waiter[C]] = deque()
        # One timer for all who wait: at most of them it would only be set and cancelled.
        self._expiry: asyncio.TimerHandle | None = None
        self._expires_at = float("inf")
        self._probe: asyncio.TimerHandle | None = None
        self._failed_probes = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(not waiter.woken.done() for waiter in self._waiters)

    def take(self) -> C | None:
        """Take the most recently used idle connection, if there is one: then nobody waits."""
        if not self.idle:
            return None
        connection = self.idle.pop()
        if self._standing is not None:
            self._standing.served(asyncio.get_running_loop().time(), 0.0, left=False)
        if not self.idle:
            self._note_if_full()
        return connection

    async def wait(self, ticket: int, deadline: float) -> C:
        """Queue behind all smaller tickets until a connection is handed over.

        Args:
            ticket: The number of the arrival. A task that queues again keeps it, and so its place.
            deadline: By the loop's clock.

        Raises:
            DeadlinePassed: Nothing was handed over until the deadline, or nothing would be.
        """
        loop = asyncio.get_running_loop()
        waiter: _Waiter[C] = _Waiter(ticket, loop.create_future(), loop.time(), deadline)
        if self._standing is not None:
            waiter.deadline = min(deadline, waiter.since + self._standing.patience)
            self._refuse_if_crowded(waiter, self._standing)
        self._enqueue(waiter)
        if self.idle:  # left behind while this one tried another that was dead
            self.offer(self.idle.pop())
            self._note_if_full()
        self._grow()
        self._expire_at(waiter.deadline, loop)
        try:
            await waiter.woken
        except asyncio.CancelledError:
            if waiter.connection is not None:  # cancelled in the very moment it was served
                self.offer(waiter.connection)
            raise
        finally:
            if waiter.connection is None and waiter in self._waiters:
                self._waiters.remove(waiter)
            if self._expiry is not None and not self._waiters:
                self._expiry.cancel()
                self._expiry = None
        if waiter.connection is None:
            assert waiter.error is not None
            raise waiter.error
        return waiter.connection

    def _refuse_if_crowded(self, newcomer: _Waiter[C], standing: Standing) -> None:
        """Refuse a newcomer at once if the queue is an overload and has no place left."""
        waiters = self._waiters
        crowded = len(waiters) >= max(standing.places, self.limit)
        if crowded and waiters[-1].ticket < newcomer.ticket:  # else it was served before
            standing.refused(newcomer.since)
            raise DeadlinePassed(len(waiters) + 1)

    def _enqueue(self, waiter: _Waiter[C]) -> None:
        place = len(self._waiters)
        while place and self._waiters[place - 1].ticket > waiter.ticket:
            place -= 1
        self._waiters.insert(place, waiter)

    def _expire_at(self, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        """Have the timer run at this deadline, or at an earlier one for which it is set."""
        if self._expiry is not None:
            if self._expires_at <= deadline:
                return
            self._expiry.cancel()
        self._expires_at = deadline
        # A context of its own: that of the request which is running would live as long.
        self._expiry = loop.call_at(deadline, self._expire, loop, context=Context())

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._expiry = None
        now = max(self._expires_at, loop.time())  # a timer may be early by the clock's resolution
        waiting = self.waiting  # before any of those whose time is up together
        for waiter in self._waiters:
            if waiter.deadline <= now:
                waiter.expire(waiting)
            elif not waiter.woken.done():
                self._expire_at(waiter.deadline, loop)

    def _first(self) -> _Waiter[C] | None:
        """Return the first that still waits: one that was cancelled may not have run since."""
        waiters = self._waiters
        while waiters:
            if not waiters[0].woken.done():
                return waiters[0]
            waiters.popleft()
        return None

    def offer(self, connection: C) -> None:
        """Give a connection to the first waiter, or keep it as idle."""
        waiter = self._first() if self._waiters else None
        if waiter is not None and self._standing is not None:
            waiter = self._first_in_time(waiter, self._standing)
        if waiter is None:
            self.idle.append(connection)
            self.full_since = None
            self._kept()
            return
        self._waiters.popleft()
        waiter.connection = connection
        waiter.woken.set_result(None)

    def _first_in_time(self, waiter: _Waiter[C], standing: Standing) -> _Waiter[C] | None:
        """Return the first that has not waited for too long; refuse those before it."""
        now = asyncio.get_running_loop().time()
        standing.served(now, now - waiter.since, left=len(self._waiters) > 1)
        first: _Waiter[C] | None = waiter
        while first is not None and now - first.since > standing.patience:
            standing.refused(now)
            first.expire(len(self._waiters))
            first = self._first()
        return first

    def free(self) -> None:
        """Give up a slot whose connection is closed."""
        self.total -= 1
        self.full_since = None
        self._grow()

    def dismiss(self, error: Callable[[], Exception]) -> None:
        """Fail all waiters, each with an error of its own; those that come later wait as usual."""
        for waiter in self._waiters:
            if not waiter.woken.done():
                waiter.fail(error())

    def forget(self) -> None:
        """Start again with no connection and no waiter, since their loop is closed."""
        self.idle.clear()
        self._waiters.clear()
        self.total = self.opening = 0
        self.generation += 1
        self.full_since = self.outage = self._probe = self._expiry = None

    # -- opening ------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Open connections for the waiters, as far as the limit allows; in an outage, probe."""
        if self.outage is not None:
            if self._probe is None and not self.opening:
                self._schedule_probe()
            return
        while self.total < self.limit and self.waiting > self.opening:
            self._open()

    def _open(self) -> None:
        self.total += 1
        self.opening += 1
        self._note_if_full()
        self._open_one()

    def _note_if_full(self) -> None:
        if self.full_since is None and not self.idle and self.total >= self.limit:
            self.full_since = time.monotonic()

    def opened(self, connection: C) -> None:
        """Take in a new connection."""
        self.opening -= 1
        self._end_outage()
        self.offer(connection)
        self._grow()

    def failed(self, error: Exception) -> None:
        """Note that the database accepts no connections at present."""
        self.opening -= 1
        self.outage = error
        self.free()

    def refused(self, error: Exception) -> None:
        """Note that the database refuses our connections, and fail the first waiter."""
        self.opening -= 1
        self._end_outage()
        waiter = self._first()
        if waiter is not None:
            waiter.fail(error)
        self.free()

    def gave_up(self) -> None:
        """Note that an opening was cancelled before the database answered."""
        self.opening -= 1
        self.free()

    def _schedule_probe(self) -> None:
        pause = min(_FIRST_PAUSE * 2 ** min(self._failed_probes, _DOUBLINGS), _LONGEST_PAUSE)
        pause *= random.uniform(0.5, 1.5)
        self._failed_probes += 1
        # A context of its own: that of the request which is running would live as long.
        self._probe = asyncio.get_running_loop().call_later(
            pause, self._send_probe, context=Context()
        )

    def _send_probe(self) -> None:
        """Try to connect for the waiters; where there are none, the next arrival will."""
        self._probe = None
        if self.waiting:
            self._open()
        else:
            self._end_outage()

    def _end_outage(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        self.outage = None
        self._failed_probes = 0
