"""Slots: who may have a connection next. The fair queue behind the pool, free of SQLAlchemy.

A *lease* is either an idle connection or a slot, the right to open one. Whoever finds neither waits
in the order of arrival. While the database accepts no connections, nobody opens any but one prober
at a time: the first in the queue, after a pause that doubles.

Everything here runs in one event loop and never awaits but in `wait`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import Final, Generic, TypeVar

__all__ = ["SLOT", "DeadlinePassed", "Slot", "Slots"]

C = TypeVar("C")

#: Seconds between two attempts to connect during an outage, before jitter; doubled up to the longest.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


class Slot:
    """The right to open one connection."""


SLOT: Final = Slot()


class DeadlinePassed(Exception):  # noqa: N818 - the pool turns it into the error that users see
    """Nothing became free in time."""


class _Waiter(Generic[C]):
    """One who waits, with the ticket of his arrival."""

    __slots__ = ("future", "served", "ticket")

    def __init__(self, ticket: int, future: asyncio.Future[C | Slot]) -> None:
        self.ticket = ticket
        self.future = future
        self.served = False

    def expire(self) -> None:
        if not self.future.done():
            self.future.set_exception(DeadlinePassed())


class Slots(Generic[C]):
    """The slots of one pool, in use, idle or free, and the queue for them.

    Args:
        limit: How many connections may be open; `float("inf")` for no limit.

    Example:
        >>> lease = slots.take() or await slots.wait(ticket, deadline)
        >>> slots.offer(connection)     # it comes back
        >>> slots.free()                # or it was closed
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        #: Connections that are open, being opened or being closed.
        self.total = 0
        #: Connections that nobody uses; the longest idle first.
        self.idle: deque[C] = deque()
        #: Monotonic seconds since which neither a connection nor a slot was free, or None.
        self.full_since: float | None = None
        #: Why the last attempt to connect failed, while none succeeds.
        self.outage: Exception | None = None
        self._waiters: deque[_Waiter[C]] = deque()
        self._probe: asyncio.TimerHandle | None = None
        self._failed_probes = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiters)

    def take(self) -> C | Slot | None:
        """Take what is free, the most recently used connection first, unless others wait for it."""
        lease: C | Slot | None = None
        if not self._waiters:
            if self.idle:
                lease = self.idle.pop()
            elif self.total < self.limit and self.outage is None:
                self.total += 1
                lease = SLOT
        if self.full_since is None and not self.idle and self.total >= self.limit:
            self.full_since = time.monotonic()
        return lease

    async def wait(self, ticket: int, deadline: float) -> C | Slot:
        """Queue behind all smaller tickets until something is handed over.

        Args:
            ticket: The arrival; whoever queues again keeps it, and with it the place.
            deadline: By the loop's clock.

        Raises:
            DeadlinePassed: Nothing was handed over until the deadline.
        """
        loop = asyncio.get_running_loop()
        waiter: _Waiter[C] = _Waiter(ticket, loop.create_future())
        self._enqueue(waiter)
        expiry = loop.call_at(deadline, waiter.expire)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.served:  # cancelled in the very moment in which it was served
                self._pass_on(waiter.future.result())
            raise
        finally:
            expiry.cancel()
            if not waiter.served:
                self._waiters.remove(waiter)

    def _enqueue(self, waiter: _Waiter[C]) -> None:
        place = len(self._waiters)
        while place and self._waiters[place - 1].ticket > waiter.ticket:
            place -= 1
        self._waiters.insert(place, waiter)

    def _serve(self, lease: C | Slot) -> bool:
        """Hand a lease to the first who waits; False when nobody does."""
        for waiter in self._waiters:
            if not waiter.future.done():
                self._waiters.remove(waiter)
                waiter.served = True
                waiter.future.set_result(lease)
                return True
        return False

    def _pass_on(self, lease: C | Slot) -> None:
        if isinstance(lease, Slot):
            self.free()
        else:
            self.offer(lease)

    def offer(self, connection: C) -> bool:
        """Give a connection to the first who waits, or keep it as idle.

        Returns:
            Whether it was kept.
        """
        if self._serve(connection):
            return False
        self.idle.append(connection)
        self.full_since = None
        return True

    def free(self) -> None:
        """Give up a slot whose connection is closed, or was never opened."""
        if self.outage is None and self._serve(SLOT):
            return
        self.total -= 1
        self.full_since = None
        if self.outage is not None and self._probe is None:
            pause = min(_FIRST_PAUSE * 2**self._failed_probes, _LONGEST_PAUSE)
            pause *= random.uniform(0.5, 1.5)
            self._failed_probes += 1
            self._probe = asyncio.get_running_loop().call_later(pause, self._send_probe)

    def failed(self, error: Exception) -> None:
        """The database accepted no connection for the holder of a slot, which is given up."""
        self.outage = error
        self.free()

    def _send_probe(self) -> None:
        """Let the first who waits try to connect; when nobody waits, the next arrival will."""
        self._probe = None
        self.total += 1
        if not self._serve(SLOT):
            self.total -= 1
            self.recovered()

    def recovered(self) -> None:
        """The database answers: let everybody connect who finds a free slot."""
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        self.outage = None
        self._failed_probes = 0
        while self.total < self.limit and self._waiters:
            self.total += 1
            if not self._serve(SLOT):
                self.total -= 1
                return
