"""Turns: a fair, reentrant lock for the tasks that share one session."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, TypeVar

from sqlalchemy.util import await_only

__all__ = ["Turns"]

_T = TypeVar("_T")

#: The turns that the running code is in. A task that it starts is in them too: whoever has the turn
#: may wait for that task, which must not wait for its turn then.
_within: Final[ContextVar[tuple[object, ...]]] = ContextVar("reviewpoint_db_turns", default=())


class Turns:
    """Runs one piece of work at a time, in the order of arrival; work inside of a turn belongs to it.

    Example:
        >>> turns = Turns()
        >>> turns.run(lambda: session.execute(statement))
    """

    __slots__ = ("_now", "_queue")

    def __init__(self) -> None:
        #: Whose turn it is; None for nobody's.
        self._now: object | None = None
        self._queue: deque[tuple[asyncio.Future[None], object]] = deque()

    @property
    def inside(self) -> bool:
        """Whether the calling code is in the turn that is under way."""
        return self._now in _within.get()

    def run(self, work: Callable[[], _T]) -> _T:
        """Run `work()` in a turn of its own, or in the one that the calling code is in.

        It waits for those before it, whose own limits are the bound: it must be called in a greenlet
        for that.
        """
        within = _within.get()
        if self._now in within:
            return work()
        mine = object()
        if self._now is None:
            self._now = mine
        else:
            await_only(self._wait(mine))
        _within.set((*within, mine))
        try:
            return work()
        finally:
            _within.set(within)
            self._next()

    async def _wait(self, mine: object) -> None:
        called = asyncio.get_running_loop().create_future()
        self._queue.append((called, mine))
        try:
            await called
        except asyncio.CancelledError:
            if self._now is mine:  # called and canceled in the same moment
                self._next()
            raise

    def _next(self) -> None:
        while self._queue:
            called, self._now = self._queue.popleft()
            if not called.done():  # else it was canceled
                called.set_result(None)
                return
        self._now = None
