"""Holder: who has a connection of the pool or waits for one, and what it does with it."""

from __future__ import annotations

import asyncio
import time
import weakref
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from reviewpoint_db.context import Origin, current_origin, current_units
from reviewpoint_db.stacks import Frame, stack_of, where
from reviewpoint_db.statements import shape_of

if TYPE_CHECKING:
    from reviewpoint_db.backend import Backend
    from reviewpoint_db.transaction import UnitOfWork

__all__ = ["Holder", "HolderSnapshot", "HolderState", "Work"]

HolderState = Literal["waiting", "active", "idle in transaction", "idle"]


class Work:
    """What one session did so far; times are in seconds."""

    __slots__ = ("holder", "opened", "seconds", "shapes", "statements", "waited")

    def __init__(self) -> None:
        #: Monotonic seconds of its first use of a connection.
        self.opened = time.monotonic()
        self.statements = 0
        self.seconds = 0.0
        #: How long it waited for connections.
        self.waited = 0.0
        #: How often it executed each statement, while somebody counts.
        self.shapes: dict[str, int] | None = None
        self.holder: Holder | None = None

    def begin(self, holder: Holder) -> None:
        """Note that the session has taken a connection."""
        if holder.work is not self:
            self.waited += holder.waited
            self.holder = holder
            holder.work = self


class Holder:
    """Who has a connection of the pool, or waits for one, and since when (monotonic seconds).

    One is made at every checkout, so it keeps references only, and is described when somebody asks.

    Args:
        since: When it got the connection, or began to wait.
        driver: The driver's connection.
        backend: That driver's `Backend`.
        database: The name of its database, of which the request has a unit of work.
    """

    __slots__ = (
        "_backend",
        "_driver",
        "_ended",
        "_origin",
        "_task",
        "_unit",
        "changed",
        "number",
        "running",
        "since",
        "statement",
        "statements",
        "told",
        "waited",
        "work",
    )

    def __init__(
        self,
        since: float,
        driver: Any = None,
        backend: Backend | None = None,
        database: str = "",
    ) -> None:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no loop runs
            task = None
        units = current_units.get()
        self.since = since
        #: When a statement began or ended last.
        self.changed = since
        #: Whether a statement is being executed.
        self.running = False
        #: The last statement, as it was executed: show its shape only.
        self.statement: str | None = None
        self.statements = 0
        #: Counts checkouts, so that a page can tell holders apart.
        self.number = 0
        #: Seconds that it waited for the connection.
        self.waited = 0.0
        #: The session that it belongs to.
        self.work: Work | None = None
        #: What was said about it: once per episode. None in most.
        self.told: set[str] | None = None
        self._driver = driver
        self._backend = backend
        # Weak: a strong reference would keep a leaked connection from the garbage collector.
        self._task = weakref.ref(task) if task is not None else None
        self._unit = (
            # A request of another database alone may use this one in a block.
            weakref.ref(units.get(database) or next(iter(units.values()))) if units else None
        )
        self._origin = None if units else current_origin.get()
        #: The request, once it is over.
        self._ended: Origin | None = None

    def got(self, now: float, driver: Any, backend: Backend) -> None:
        """Note that who waited has a connection, since `now` (monotonic seconds)."""
        self.since = self.changed = now
        self._driver = driver
        self._backend = backend

    def outlive(self, unit: UnitOfWork) -> None:
        """Keep the name of a request that is over: whoever holds its connection on is a leak."""
        if self._unit is not None and self._unit() is unit:
            self._ended = Origin(unit.origin, unit.request_id)

    @property
    def handler(self) -> str | None:
        """The handler, or the named session, that it is for; without a request's id."""
        if self._ended is not None:
            return self._ended.handler
        unit = self._unit() if self._unit is not None else None
        return unit.origin if unit is not None else self._origin

    @property
    def origin(self) -> str | None:
        """The request or the named session that it is for, if it is for one."""
        if self._ended is not None:
            return str(self._ended)
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
    def name(self) -> str:
        """The origin, or else the task."""
        return self.origin or self.task_name

    @property
    def abandoned(self) -> bool:
        """Whether the task that took the connection has ended without returning it."""
        task = self.task
        return self._task is not None and (task is None or task.done())

    @property
    def pid(self) -> int | None:
        """The server's process behind the connection, where there is one."""
        return self._backend.pid(self._driver) if self._backend is not None else None

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open on the connection."""
        return self._backend is not None and self._backend.in_transaction(self._driver)

    @property
    def state(self) -> HolderState:
        """What the connection is doing."""
        if self._backend is None:
            return "waiting"
        in_transaction = self.in_transaction
        # COMMIT and ROLLBACK tell of their begin only; the driver knows when they are over.
        if self.running and (in_transaction or self.statement not in ("COMMIT", "ROLLBACK")):
            return "active"
        return "idle in transaction" if in_transaction else "idle"

    def say_once(self, what: str) -> bool:
        """Return whether this was not said of it before."""
        if self.told is None:
            self.told = set()
        elif what in self.told:
            return False
        self.told.add(what)
        return True

    def stack(self) -> tuple[Frame, ...]:
        """Return where its task stands at present, the outermost call first."""
        task = self.task
        return stack_of(task) if task is not None else ()

    def snapshot(self, now: float, *, stack: bool = False) -> HolderSnapshot:
        """Return the holder as it is now.

        Args:
            now: Monotonic seconds.
            stack: Also read where its task stands.
        """
        frames = self.stack() if stack else ()
        return HolderSnapshot(
            origin=self.origin,
            task=self.task_name,
            held=now - self.since,
            abandoned=self.abandoned,
            number=self.number,
            handler=self.handler,
            pid=self.pid,
            state=self.state,
            in_transaction=self.in_transaction,
            state_for=now - self.changed,
            statement=shape_of(self.statement) if self.statement is not None else None,
            statements=self.statements,
            waited=self.waited,
            where=where(frames),
            stack=frames,
        )


class HolderSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a connection, or waits for one; times are in seconds.

    Args:
        origin: The request, with its id, or the named session.
        task: The name of its task.
        held: Since when it holds the connection, or waits.
        abandoned: Its task has ended without returning the connection: a leak.
        number: Tells it from all others of this process.
        handler: The origin without the request's id.
        pid: The server's process behind its connection.
        state: What the connection is doing.
        in_transaction: Whether a transaction is open on it.
        state_for: How long it has been doing that.
        statement: The shape of its last statement.
        statements: How many it has executed.
        waited: How long it waited for the connection.
        where: The line of the application that its task is at; only when stacks were asked for.
        stack: Where its task is, the outermost call first; only when stacks were asked for.
    """

    origin: str | None
    task: str
    held: float
    abandoned: bool
    number: int
    handler: str | None
    pid: int | None
    state: HolderState
    in_transaction: bool
    state_for: float
    statement: str | None
    statements: int
    waited: float
    where: str | None = None
    stack: tuple[Frame, ...] = ()

    def __str__(self) -> str:
        """One phrase for error texts."""
        leak = ", its task has ended: a leak" if self.abandoned else ""
        return f"{self.origin or self.task} (for {self.held:.1f} s{leak})"
