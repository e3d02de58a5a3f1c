"""Lateness: whether an event loop still beats, and what keeps it from that.

A loop has one `Beat`, whichever databases use it: what blocks it is logged once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Final

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
        #: Who learns of it; the first one's warning is logged.
        self.told_to: tuple[Activity, ...] = ()
        #: The loop is between two `run_until_complete()`, until the next beat.
        self.paused = False
        self._thread = threading.get_ident()
        self._told = False
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
                for activity in self.told_to:
                    activity.loop_late = (now, late)
                if not self._told:  # the thread could not run either
                    self._say(late, "")
            self._told = self.paused = False
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
            self._say(late, f", blocked by {where(stack) or 'a library'}: {deepest}")

    def _say(self, late: float, by: str) -> None:
        task = asyncio.current_task(self.loop)
        holders = (holder for activity in self.told_to for holder in activity.held())
        holder = next((one for one in holders if one.task is task is not None), None)
        name = holder.name if holder is not None else task.get_name() if task else None
        message = (
            f"The event loop is late by {late:.2f} s{f' in {name}' if name else ''}{by}. Everything "
            "waits meanwhile: move blocking work to a thread (asyncio.to_thread)."
        )
        for number, activity in enumerate(self.told_to):
            activity.warn("event_loop_late", message, origin=name, log=number == 0)
