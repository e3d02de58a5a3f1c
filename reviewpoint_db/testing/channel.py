"""Channel: how a stand-in for a connection reaches the sandbox, from whatever loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from reviewpoint_db.context import current_units, describe_origin
from reviewpoint_db.testing.faults import DriverErrors, Faults
from reviewpoint_db.testing.levels import Member
from reviewpoint_db.testing.sandbox import Sandbox
from reviewpoint_db.testing.thread import LoopThread

__all__ = ["Channel"]

_T = TypeVar("_T")
#: The task that has a transaction open, for itself and for what it starts meanwhile.
_transaction_of: ContextVar[asyncio.Task[Any] | None] = ContextVar(
    "reviewpoint_db_sandbox", default=None
)


class Channel:
    """One member of a sandbox.

    Args:
        sandbox: Where everything happens.
        owner: The loop that the sandbox lives in.
        faults: Outages; None spares this member.
        errors: How the driver says what has happened.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        owner: LoopThread,
        faults: Faults | None,
        errors: DriverErrors,
    ) -> None:
        self._sandbox = sandbox
        self._owner = owner
        self._member = Member(guest=faults is None)
        self._faults = faults or Faults()
        self._generation = self._faults.generation
        self._errors = errors

    @property
    def closed(self) -> bool:
        """Whether the connection was closed or dropped, or has outlived its test."""
        return self._member.gone or self._sandbox.over or self._dropped

    @property
    def _dropped(self) -> bool:
        return self._generation != self._faults.generation

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._member.level is not None

    def first(self, what: object) -> bool:
        """Whether nobody of the sandbox did this to the real connection yet; it counts as done."""
        known, before = self._sandbox.known, what in self._sandbox.known
        known.add(what)
        return not before

    async def begin(self, *, read_only: bool = False) -> None:
        """Begin: a savepoint."""
        await self._before()
        party, origin = self._party()
        if not self._member.guest and _transaction_of.get() is None:
            _transaction_of.set(asyncio.current_task())
        await self._owner.call(
            self._sandbox.begin(self._member, party, origin, read_only=read_only)
        )

    async def commit(self) -> None:
        """Commit: the deferred constraints, then the savepoint's release."""
        await self._before()
        _forget_transaction()
        if self._faults.takes_commit():
            await self._owner.call(self._sandbox.rollback(self._member))
            raise self._errors.conflict()
        await self._owner.call(self._sandbox.commit(self._member))

    async def rollback(self) -> None:
        """Roll back to the savepoint."""
        await self._before()
        _forget_transaction()
        await self._owner.call(self._sandbox.rollback(self._member))

    async def run(
        self, text: str, work: Callable[[], Awaitable[_T]], *, prepares: bool = False
    ) -> _T:
        """Have `work()` send a statement from the sandbox's loop.

        Args:
            text: The statement, as far as it is known.
            work: Sends it over the real connection.
            prepares: Whether that prepares it, and does no more.
        """
        await self._before()
        return await self._owner.call(
            self._sandbox.run(self._member, *self._party(), text, work, prepares=prepares)
        )

    async def set_up(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Have `work()` change the real connection for all, at no one's turn."""
        await self._before()
        return await self._owner.call(self._sandbox.set_up(work))

    async def ping(self) -> None:
        """Do as if a round trip had been made: the sandbox's connection is there."""
        await self._before()

    async def release(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Have `work()` run in the sandbox's loop at no one's turn: it changes nothing."""

        async def run() -> _T:
            return await work()

        return await self._owner.call(run())

    def _party(self) -> tuple[object, str]:
        party, origin = _party()
        return party, "The test's session" if self._member.guest else origin

    async def _before(self) -> None:
        await self._faults.on_round_trip()
        if self._member.gone:
            raise self._errors.lost("closed, with its session or its test")
        if self._dropped:
            raise self._errors.lost("dropped by db_faults")

    def drop(self) -> Any:
        """Have the sandbox undo what is open; returns a future of that."""
        self._member.gone = True
        work = self._sandbox.drop(self._member)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._owner.loop)
        except RuntimeError:  # the sandbox is closed already, and with it all that was open in it
            work.close()
            done: concurrent.futures.Future[None] = concurrent.futures.Future()
            done.set_result(None)
            return done


def _forget_transaction() -> None:
    if _transaction_of.get() is asyncio.current_task():
        _transaction_of.set(None)


def _party() -> tuple[object, str]:
    """Return who asks, and a name for it.

    It is the request; outside of requests the task, and what it started while it had a transaction
    open, a connection's setup among that: it waits for them, so they cannot wait for its turn.
    """
    units = current_units.get()
    task = asyncio.current_task()
    origin = describe_origin()
    name = str(origin) if origin is not None else f"the task {task.get_name() if task else '?'}"
    if origin is None and (thread := threading.current_thread()) is not threading.main_thread():
        name += f" of the thread {thread.name}"
    if units:
        return next(iter(units.values())), name
    return _transaction_of.get() or task, name
