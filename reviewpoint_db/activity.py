"""What a database does: counters, timers, who holds a connection, what was slow.

One `Activity` belongs to one database. The pool and the sessions write into it,
everything that shows something (metrics, health, error texts, the debug routes)
reads an immutable `ActivitySnapshot`. It survives the pool's `recreate()`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from loguru import logger

from reviewpoint_db.answer_log import AnswerLog
from reviewpoint_db.context import SYSTEM_CHECKS
from reviewpoint_db.failures import Failing, Failures
from reviewpoint_db.forks import on_fork
from reviewpoint_db.histogram import BUCKETS, Histogram, HistogramSnapshot
from reviewpoint_db.holder import Holder, HolderSnapshot, Work
from reviewpoint_db.reachability import Reachability
from reviewpoint_db.slowest import Slowest
from reviewpoint_db.snapshots import (
    ActivitySnapshot,
    CloseReason,
    FileLost,
    LoopLate,
    Warned,
    WarningKind,
    words_of,
)
from reviewpoint_db.statements import shape_of

if TYPE_CHECKING:
    from reviewpoint_db.transaction import UnitOfWork

__all__ = [
    "BUCKETS",
    "Activity",
    "ActivitySnapshot",
    "CloseReason",
    "Event",
    "Histogram",
    "HistogramSnapshot",
    "Holder",
    "HolderSnapshot",
    "Measure",
    "Sink",
    "Warned",
    "WarningKind",
    "Work",
]

Event = Literal[
    "db.started", "db.stopped", "db.pool_exhausted", "db.leak", "db.unreachable", "db.reachable"
]
Listener = Callable[[Event, dict[str, Any]], None]
Measure = Literal[
    "wait",
    "use",
    "creation",
    "statement",
    "statement_failed",
    "rows",
    "session",
    "timed_out",
    "canceled",
    "queued",
    "ping",
    "closed",
    "connect_failed",
    "warning",
    "waiting",
    "up",
    "replica_up",
    "replica_lag",
]
#: Called as `sink(measure, seconds, label, statement)`; events without a duration bring 0, "waiting"
#: the change of how many wait, "rows" how many a statement returned, "up" and "replica_up" 1 or 0.
Sink = Callable[[Measure, float, str, str], None]

#: Warnings that are remembered, for the page.
_WARNINGS: Final = 50
#: Different ones that are counted; beyond that, those that were not said for longest are forgotten.
_WORDS: Final = 200
#: Handlers whose sessions are counted apart; all others are counted as this one.
_HANDLERS: Final = 200
#: Codes that are counted apart: functions of a database may raise any.
_CODES: Final = 100
_OTHERS: Final = "(others)"


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
        #: Whether the database can be reached; its replicas are not meant.
        self.reachability = Reachability(self)
        #: Which errors were answered, as far as they are alike.
        self.answers = AnswerLog()
        #: The last time that the event loop was late.
        self.loop_late: LoopLate | None = None
        #: The last time that a SQLite file was found removed or replaced.
        self.lost_file: FileLost | None = None
        self._waited = 0
        self._waited_total = 0.0
        self._canceled = 0
        self._timed_out = 0
        self._opened = 0
        self._pings = 0
        self._closed: dict[str, int] = {}
        self._wait = Histogram()
        self._use = Histogram()
        self._creation = Histogram()
        self._statements = Histogram()
        self._statement_errors: dict[str, int] = {}
        self._failures = Failures()
        self._sessions: dict[str, Histogram] = {}
        self._slow_sessions = Slowest(but_of=SYSTEM_CHECKS)
        self._slow_statements = Slowest(shape_of, but_of=SYSTEM_CHECKS)
        self._holders: set[Holder] = set()
        self._waiters: set[Holder] = set()
        self._warnings: dict[str, int] = {}
        #: How often each was said, by its kind and words; what was said last is the last.
        self._said: dict[tuple[str, str], int] = {}
        self._recent_warnings: deque[Warned] = deque(maxlen=_WARNINGS)
        self._listeners: list[Listener] = []
        self._sinks: tuple[Sink, ...] = ()
        #: Whether somebody listens to each single measurement; asked at each statement.
        self.is_fed = False
        # Reentrant: the garbage collector may return a connection while this thread has it.
        self._lock = threading.RLock()
        on_fork(self)

    def forget_parent(self) -> None:
        """Begin in a forked child, where nobody holds or awaits anything."""
        self._lock = threading.RLock()
        self._holders, self._waiters = set(), set()

    # -- connections --------------------------------------------------------------------------

    def engine_created(self) -> None:
        """Count an engine."""
        with self._lock:
            self.engines_created += 1

    def connection_opened(self, seconds: float, *, to_replica: bool = False) -> None:
        """Count a new connection and the time it took."""
        with self._lock:
            self._opened += 1
            self._creation.record(seconds)
        self._tell("creation", seconds)
        if not to_replica:
            self.reachability.answered()

    def connection_failed(self, error: str, *, to_replica: bool = False) -> None:
        """Count a failed connect, or a failed health check; `error` is its safe text."""
        with self._lock:
            self.connection_failures += 1
        self._tell("connect_failed")
        if not to_replica:
            self.reachability.failed(error)

    def up_changed(self, *, up: bool) -> None:
        """Tell who listens whether the database can be reached; `reachability` keeps it."""
        if up:
            self.answers.tell()  # before the line that it answers again
        self._tell("up", float(up))

    def connection_closed(self, reason: CloseReason) -> None:
        """Count a closed connection by its reason."""
        with self._lock:
            self._closed[reason] = self._closed.get(reason, 0) + 1
        self._tell("closed", 0.0, reason)

    def file_lost(self, path: str) -> None:
        """Note that a SQLite file was removed or replaced, and that its connections are."""
        self.lost_file = FileLost(time.monotonic(), path)
        self.warn(
            "file_lost",
            f"The file of database {self.name!r} was removed or replaced ({path}): its connections "
            "are opened anew. What they stored in the old file since then is not in the new one. "
            "Stop the application before you replace its file.",
        )

    def pinged(self) -> None:
        """Count a ping at checkout."""
        with self._lock:
            self._pings += 1
        self._tell("ping")

    def acquired(self, holder: Holder, waited: float, *, queued: bool) -> None:
        """Record that a connection left the pool.

        Args:
            holder: Who has it until its return, and waits no more if he did.
            waited: Seconds from the request to the verified connection.
            queued: Whether none was idle: it had to wait for a return or a new connection.
        """
        holder.waited = waited
        with self._lock:
            awaited = holder in self._waiters
            if awaited:
                self._waiters.remove(holder)
            self._wait.record(waited)
            holder.number = self._wait.count
            self._holders.add(holder)
            if queued:
                self._waited += 1
                self._waited_total += waited
        if self._sinks:
            if awaited:
                self._tell("waiting", -1)
            if queued:
                self._tell("queued", waited)
            self._tell("wait", waited)

    def released(self, holder: Holder, now: float) -> None:
        """Record that a connection is back, at `now` (monotonic seconds)."""
        used = now - holder.since
        with self._lock:
            self._holders.discard(holder)
            self._use.record(used)
        if holder.told is not None and "leak" in holder.told:
            logger.info("{} returned its connection after {:.1f} s", holder.name, used)
        if self._sinks:
            self._tell("use", used)

    def request_ended(self, unit: UnitOfWork) -> None:
        """Have those who still hold a connection for a request remember its name."""
        if self._holders:
            with self._lock:
                holders = [*self._holders]
            for holder in holders:
                holder.outlive(unit)

    def waiting(self, waiter: Holder) -> None:
        """Record that somebody waits for a connection."""
        with self._lock:
            self._waiters.add(waiter)
        if self._sinks:
            self._tell("waiting", 1)

    def waits_no_more(self, waiter: Holder) -> None:
        """Record that somebody gave up waiting; who got a connection has `acquired()` say so."""
        with self._lock:
            self._waiters.discard(waiter)
        if self._sinks:
            self._tell("waiting", -1)

    def acquire_canceled(self) -> None:
        """Count a waiter that was cancelled."""
        with self._lock:
            self._canceled += 1
        self._tell("canceled")

    def acquire_timed_out(self) -> None:
        """Count a waiter whose deadline passed."""
        with self._lock:
            self._timed_out += 1
        self._tell("timed_out")

    def replica_seen(self, host: str, lag: float | None, *, up: bool) -> None:
        """Tell who listens what a replica is like; `Replicas` keeps it."""
        self._tell("replica_up", float(up), host)
        if lag is not None:
            self._tell("replica_lag", lag, host)

    # -- sessions and statements --------------------------------------------------------------

    def session_created(self) -> None:
        """Count a session."""
        with self._lock:
            self.sessions_created += 1

    def session_ended(self, work: Work) -> None:
        """Record what a session did from its first statement to its end."""
        now = time.monotonic()
        seconds = now - work.opened
        # They know each other: a cycle that each session would leave to the garbage collector.
        holder, work.holder = work.holder, None
        handler = (holder.handler if holder is not None else None) or "unknown"
        told = handler
        with self._lock:
            histogram = self._sessions.get(handler)
            if histogram is None:
                told = handler if len(self._sessions) < _HANDLERS else _OTHERS
                histogram = self._sessions.setdefault(told, Histogram())
            histogram.record(seconds)
            self._slow_sessions.record(
                handler, seconds, now, lambda: holder.origin if holder is not None else None
            )
        self._tell("session", seconds, told)

    def statement_done(self, holder: Holder, statement: str, seconds: float, now: float) -> None:
        """Record a statement.

        Args:
            holder: Whose it was.
            statement: Its text; it is shown as its shape only.
            seconds: How long it took.
            now: Monotonic seconds.
        """
        with self._lock:
            self._statements.record(seconds)
            self._slow_statements.record(statement, seconds, now, lambda: holder.origin)
        if self._sinks:
            self._tell("statement", seconds, statement=statement)

    def rows_returned(self, number: int, statement: str) -> None:
        """Tell who listens how many rows a statement returned; nothing keeps it."""
        self._tell("rows", number, statement=statement)

    def statement_failed(
        self, code: str, seconds: float, statement: str = "", handler: str = "unknown"
    ) -> None:
        """Count a statement that failed, by the database's code or the error's class."""
        with self._lock:
            self._failures.note(code, handler, self._statements.count)
            if code not in self._statement_errors and len(self._statement_errors) >= _CODES:
                code = _OTHERS
            self._statement_errors[code] = self._statement_errors.get(code, 0) + 1
        self._tell("statement_failed", seconds, code, statement)

    def failing_lately(self) -> tuple[list[Failing], int]:
        """Return which statements failed in the last seconds, and how many succeeded meanwhile."""
        with self._lock:
            return self._failures.lately(self._statements.count)

    # -- warnings and events ------------------------------------------------------------------

    def warn(
        self, kind: WarningKind, message: str, *, origin: str | None = None, log: bool = True
    ) -> None:
        """Log a warning and remember it.

        Args:
            kind: Of what; the figures are counted by it.
            message: Names the handler, bears no values of statements, and says what to do.
            origin: Who is to blame.
            log: False when another database's activity has logged it.
        """
        if log:
            logger.warning("{}", message)
        with self._lock:
            self._warnings[kind] = self._warnings.get(kind, 0) + 1
            key = (kind, words_of(message))
            count = self._said[key] = self._said.pop(key, 0) + 1
            if len(self._said) > _WORDS:
                del self._said[next(iter(self._said))]
            self._recent_warnings.appendleft(
                Warned(datetime.now(UTC), kind, message, origin, count)
            )
        self._tell("warning", 0.0, kind)

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

    def feed(self, sink: Sink) -> Callable[[], None]:
        """Have `sink` called for each single measurement; returns a function that ends it."""
        with self._lock:
            self._sinks = (*self._sinks, sink)
            self.is_fed = True

        def end() -> None:
            with self._lock:
                self._sinks = tuple(other for other in self._sinks if other is not sink)
                self.is_fed = bool(self._sinks)

        return end

    def _tell(
        self, measure: Measure, value: float = 0.0, label: str = "", statement: str = ""
    ) -> None:
        for sink in self._sinks:
            try:
                sink(measure, value, label, statement)
            except Exception as error:  # noqa: BLE001 - a sink is foreign code, and a connection may wait
                logger.error("A sink of measurements failed: {}", type(error).__name__)

    # -- what others read ---------------------------------------------------------------------

    def held(self) -> list[Holder]:
        """Return the live objects of those who hold connections, the longest first."""
        with self._lock:
            return sorted(self._holders, key=lambda holder: holder.since)

    def holders(self, *, stacks: bool = False) -> tuple[HolderSnapshot, ...]:
        """Return who holds connections now, the longest first.

        Args:
            stacks: Also read where their tasks stand at present.
        """
        held = self.held()
        now = time.monotonic()
        return tuple(holder.snapshot(now, stack=stacks) for holder in held)

    def with_newer(self, holders: tuple[HolderSnapshot, ...]) -> tuple[HolderSnapshot, ...]:
        """Add who has come since a look at the holders; of the others the stack is not read again."""
        known = {holder.number for holder in holders}
        now = time.monotonic()
        newer = (holder for holder in self.held() if holder.number not in known)
        return (*holders, *(holder.snapshot(now, stack=True) for holder in newer))

    def waiters(self, *, stacks: bool = False) -> tuple[HolderSnapshot, ...]:
        """Return who waits for a connection, the longest first; as `holders()`."""
        with self._lock:
            waiters = sorted(self._waiters, key=lambda waiter: waiter.since)
        now = time.monotonic()
        return tuple(waiter.snapshot(now, stack=stacks) for waiter in waiters)

    @property
    def closed(self) -> dict[str, int]:
        """How many connections were closed, by reason."""
        with self._lock:
            return dict(self._closed)

    def snapshot(self) -> ActivitySnapshot:
        """Return everything as it is now, the stacks of tasks aside."""
        holders, waiters = self.holders(), self.waiters()
        now = time.monotonic()
        with self._lock:
            return ActivitySnapshot(
                engines_created=self.engines_created,
                sessions_created=self.sessions_created,
                connection_failures=self.connection_failures,
                acquired=self._wait.count,
                waited=self._waited,
                waited_total=self._waited_total,
                canceled=self._canceled,
                timed_out=self._timed_out,
                opened=self._opened,
                pings=self._pings,
                closed=dict(self._closed),
                wait=self._wait.snapshot(),
                use=self._use.snapshot(),
                creation=self._creation.snapshot(),
                statements=self._statements.snapshot(),
                statement_errors=dict(self._statement_errors),
                sessions={name: one.snapshot() for name, one in self._sessions.items()},
                holders=holders,
                waiters=waiters,
                slowest_sessions=self._slow_sessions.snapshot(now),
                slowest_statements=self._slow_statements.snapshot(now),
                warnings=dict(self._warnings),
                recent_warnings=tuple(self._recent_warnings),
            )
