"""What a database does: counters, timers and who holds a connection.

One `Activity` belongs to one database. The pool and the sessions write into it,
everything that shows something (metrics, health, error texts, the debug routes)
reads an immutable `ActivitySnapshot`. It survives the pool's `recreate()`.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
from loguru import logger

from reviewpoint_db.context import Origin, current_origin, current_units

__all__ = [
    "Activity",
    "ActivitySnapshot",
    "CloseReason",
    "Event",
    "Histogram",
    "HistogramSnapshot",
    "Holder",
    "HolderSnapshot",
]

CloseReason = Literal[
    "idle", "lifetime", "lost", "ping_failed", "invalidated", "unclean", "disposed"
]
Event = Literal["db.started", "db.stopped", "db.pool_exhausted", "db.leak"]
Listener = Callable[[Event, dict[str, Any]], None]

#: Upper bounds in seconds; doubling from 50 µs, so that a percentile is right within a factor of two.
BUCKETS: Final = tuple(0.00005 * 2**i for i in range(22))


class HistogramSnapshot(msgspec.Struct, frozen=True):
    """A histogram at one moment; all values are in seconds."""

    count: int
    total: float
    maximum: float
    buckets: tuple[int, ...]

    def percentile(self, fraction: float) -> float | None:
        """Return the upper bound of the bucket in which the percentile lies.

        Args:
            fraction: 0.99 for the 99th percentile.
        """
        if not self.count:
            return None
        rank = fraction * self.count
        seen = 0
        for bound, hits in zip(BUCKETS, self.buckets, strict=False):
            seen += hits
            if seen >= rank:
                return min(float(bound), self.maximum)
        return self.maximum


class Histogram:
    """Durations in doubling buckets: constant memory, one bisection to record."""

    __slots__ = ("_buckets", "_maximum", "_total", "count")

    def __init__(self) -> None:
        self._buckets = [0] * (len(BUCKETS) + 1)
        self.count = 0
        self._total = 0.0
        self._maximum = 0.0

    def record(self, seconds: float) -> None:
        """Add one duration."""
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self.count += 1
        self._total += seconds
        if seconds > self._maximum:  # noqa: PLR1730 - max() costs thrice as much, at every checkout
            self._maximum = seconds

    def snapshot(self) -> HistogramSnapshot:
        """Return what was recorded until now."""
        return HistogramSnapshot(self.count, self._total, self._maximum, tuple(self._buckets))


class Holder:
    """Who has a connection out of the pool, and since when (monotonic seconds).

    It is made at every checkout, so it notes no more than where to look when somebody asks.
    """

    __slots__ = ("_origin", "_task", "_unit", "since")

    def __init__(self, since: float) -> None:
        task = asyncio.current_task()
        units = current_units.get()
        self.since = since
        # Weak: a strong reference would keep a leaked connection from the garbage collector.
        self._task = weakref.ref(task) if task is not None else None
        self._unit = weakref.ref(next(iter(units.values()))) if units else None
        self._origin = None if units else current_origin.get()

    @property
    def origin(self) -> str | None:
        """The request or the named session that it is for, if it is for one."""
        unit = self._unit() if self._unit is not None else None
        return str(Origin(unit.origin, unit.request_id)) if unit is not None else self._origin

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The holding task, while it exists."""
        return self._task() if self._task is not None else None

    @property
    def task_name(self) -> str:
        """The name of the holding task, as far as it is known."""
        if self._task is None:
            return "no task"
        task = self._task()
        return task.get_name() if task is not None else "a task that is gone"

    @property
    def abandoned(self) -> bool:
        """Whether the task that took the connection has ended without returning it."""
        task = self.task
        return self._task is not None and (task is None or task.done())

    def snapshot(self, now: float) -> HolderSnapshot:
        """Return the holder as it is now."""
        return HolderSnapshot(self.origin, self.task_name, now - self.since, self.abandoned)


class HolderSnapshot(msgspec.Struct, frozen=True):
    """Who holds a connection; `held` is in seconds."""

    origin: str | None
    task: str
    held: float
    abandoned: bool

    def __str__(self) -> str:
        """One phrase for error texts."""
        leak = ", its task has ended: a leak" if self.abandoned else ""
        return f"{self.origin or self.task} (for {self.held:.1f} s{leak})"


class ActivitySnapshot(msgspec.Struct, frozen=True):
    """All counters, timers and holders at one moment."""

    engines_created: int
    sessions_created: int
    connection_failures: int
    acquired: int
    waited: int
    canceled: int
    timed_out: int
    opened: int
    pings: int
    closed: dict[str, int]
    wait: HistogramSnapshot
    use: HistogramSnapshot
    creation: HistogramSnapshot
    holders: tuple[HolderSnapshot, ...]


class Activity:
    """Counts and times what the pools and sessions of one database do.

    Engines of several event loops write into the same object, so each change takes its lock.

    Example:
        >>> activity = Activity("default")
        >>> activity.snapshot().acquired
        0
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.engines_created = 0
        self.sessions_created = 0
        self.connection_failures = 0
        self.last_failure: str | None = None
        self._waited = 0
        self._canceled = 0
        self._timed_out = 0
        self._opened = 0
        self._pings = 0
        self._closed: dict[str, int] = {}
        self._wait = Histogram()
        self._use = Histogram()
        self._creation = Histogram()
        self._holders: set[Holder] = set()
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()

    def engine_created(self) -> None:
        """Count an engine."""
        with self._lock:
            self.engines_created += 1

    def session_created(self) -> None:
        """Count a session."""
        with self._lock:
            self.sessions_created += 1

    def connection_opened(self, seconds: float) -> None:
        """Count a new connection and the time it took."""
        with self._lock:
            self._opened += 1
            self._creation.record(seconds)

    def connection_failed(self, error: str) -> None:
        """Count a failed connect; `error` is its safe text."""
        with self._lock:
            self.connection_failures += 1
            self.last_failure = error

    def connection_closed(self, reason: CloseReason) -> None:
        """Count a closed connection by its reason."""
        with self._lock:
            self._closed[reason] = self._closed.get(reason, 0) + 1

    def pinged(self) -> None:
        """Count a ping at checkout."""
        with self._lock:
            self._pings += 1

    def acquired(self, holder: Holder, waited: float, *, queued: bool) -> None:
        """Record that a connection left the pool.

        Args:
            holder: Who has it until its return.
            waited: Seconds from the request to the verified connection.
            queued: Whether none was idle: it had to wait for a return or a new connection.
        """
        with self._lock:
            self._waited += queued
            self._wait.record(waited)
            self._holders.add(holder)

    def released(self, holder: Holder, now: float) -> None:
        """Record that a connection is back, at `now` (monotonic seconds)."""
        with self._lock:
            self._holders.discard(holder)
            self._use.record(now - holder.since)

    def acquire_canceled(self) -> None:
        """Count a waiter that was cancelled."""
        with self._lock:
            self._canceled += 1

    def acquire_timed_out(self) -> None:
        """Count a waiter whose deadline passed."""
        with self._lock:
            self._timed_out += 1

    def holders(self) -> tuple[HolderSnapshot, ...]:
        """Return who holds connections now, the longest first."""
        with self._lock:
            holders = sorted(self._holders, key=lambda holder: holder.since)
        now = time.monotonic()
        return tuple(holder.snapshot(now) for holder in holders)

    def snapshot(self) -> ActivitySnapshot:
        """Return everything as it is now."""
        holders = self.holders()
        with self._lock:
            return ActivitySnapshot(
                engines_created=self.engines_created,
                sessions_created=self.sessions_created,
                connection_failures=self.connection_failures,
                acquired=self._wait.count,
                waited=self._waited,
                canceled=self._canceled,
                timed_out=self._timed_out,
                opened=self._opened,
                pings=self._pings,
                closed=dict(self._closed),
                wait=self._wait.snapshot(),
                use=self._use.snapshot(),
                creation=self._creation.snapshot(),
                holders=holders,
            )

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener(event, data)` called on events; returns a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def emit(self, event: Event, **data: Any) -> None:
        """Tell the listeners of an event; an error of one is logged and stops nothing."""
        for listener in tuple(self._listeners):
            try:
                listener(event, {"database": self.name, **data})
            except Exception as error:  # noqa: BLE001 - a listener is foreign code
                logger.error("A listener of {} failed: {}", event, type(error).__name__)
