"""Lateness: whether an event loop still beats, and what keeps it from that.

A loop has one `Beat`, whichever databases use it: what blocks it is logged once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Final

from loguru import logger

from reviewpoint_db.snapshots import LoopLate
from reviewpoint_db.stacks import stack_of_thread, where

if TYPE_CHECKING:
    from reviewpoint_db.activity import Activity

__all__ = ["BEAT", "LATE", "Beat", "beat_of", "forget_beats"]

#: Seconds that the event loop may be late before it is named.
LATE: Final = 0.5
#: Seconds between two beats of a loop, and between two looks at it.
BEAT: Final = 0.1
#: Frames of a blocking stack that are logged.
_FRAMES: Final = 12
_FIX: Final = "Everything waits meanwhile: move blocking work to a thread (asyncio.to_thread)."

_lock = threading.RLock()
_beats: dict[asyncio.AbstractEventLoop, Beat] = {}


def beat_of(activity: Activity) -> Beat:
    """Have the running loop beat for a database's sake."""
    loop = asyncio.get_running_loop()
    with _lock:
        for closed in [loop for loop in _beats if loop.is_closed()]:
            del _beats[closed]
        beat = _beats.get(loop)
        if beat is None:
            beat = _beats[loop] = Beat(loop)
        beat.told_to = (*beat.told_to, activity)
        return beat


def forget_beats() -> None:
    """Begin anew in a forked child, which runs none of its parent's loops."""
    global _lock  # noqa: PLW0603 - a thread of the parent may have had the other
    _lock = threading.RLock()
    _beats.clear()


class Beat:
    """A timer of one event loop; another thread sees by it whether the loop still runs.

    Args:
        loop: The running one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: Who learns of it; what is logged is logged once.
        self.told_to: tuple[Activity, ...] = ()
        #: The loop is between two `run_until_complete()`, until the next beat.
        self.paused = False
        self._thread = threading.get_ident()
        self._told = False
        #: What was found while it was blocked: the line, who ran it, and the stack.
        self._place: str | None = None
        self._name: str | None = None
        self._stack = ""
        self._schedule()

    def leave(self, activity: Activity) -> None:
        """End it for one database; may be called again, and from any loop."""
        with _lock:
            self.told_to = tuple(other for other in self.told_to if other is not activity)
            if not self.told_to:
                self._timer.cancel()
                if _beats.get(self.loop) is self:
                    del _beats[self.loop]

    def _schedule(self) -> None:
        #: Monotonic seconds at which the loop is to beat next.
        self._due = time.monotonic() + BEAT
        self._timer = self.loop.call_later(BEAT, self._beat)

    def _beat(self) -> None:
        now = time.monotonic()
        late = now - self._due
        with _lock:
            if not self.told_to:
                return
            if late >= LATE and not self.paused:
                self._say_over(LoopLate(now, late, self._place))
            self._told = self.paused = False
            self._place, self._name, self._stack = None, None, ""
            self._schedule()

    def look(self) -> None:
        """Name what blocks the loop at this moment, if anything does."""
        with _lock:
            if not self.loop.is_running():
                self.paused = True
            late = time.monotonic() - self._due
            if late < LATE or self._told or self.paused:
                return
            self._told = True
            stack = stack_of_thread(self._thread)
            deepest = " < ".join(str(frame) for frame in reversed(stack[-_FRAMES:]))
            self._place, self._name = where(stack) or "a library", self._whose()
            self._stack = f": {deepest}"
            # Now, since it may never end; it is counted when it has, with how long it took.
            logger.warning(
                "The event loop is late by {:.2f} s{}, blocked by {}{}. {}",
                late,
                f" in {self._name}" if self._name else "",
                self._place,
                self._stack,
                _FIX,
            )

    def _say_over(self, late: LoopLate) -> None:
        """Say how long it took; the stack is in the line before, and on the page."""
        what = f"The event loop was blocked for {late.seconds:.1f} s"
        what += f" by {late.place}" if late.place else ""
        what += f" in {self._name}" if self._name else ""
        logger.warning("{}. {}", what, _FIX)
        for activity in self.told_to:
            activity.loop_late = late
            stack = f" Stack{self._stack}" if self._stack else ""
            message = f"{what}. {_FIX}{stack}"
            activity.warn("event_loop_late", message, origin=self._name, log=False)

    def _whose(self) -> str | None:
        """Name who runs in the loop at this moment."""
        task = asyncio.current_task(self.loop)
        holders = (holder for activity in self.told_to for holder in activity.held())
        holder = next((one for one in holders if one.task is task is not None), None)
        return holder.name if holder is not None else task.get_name() if task else None
