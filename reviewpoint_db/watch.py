"""Watch: a thread that says what lasts too long, even while the event loop is blocked.

It looks at two things: whether the loop still beats, and what those who hold connections do. What
it has to say is said once an episode, with the handler's name.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Final

from reviewpoint_db.stacks import stack_of_thread, where
from reviewpoint_db.statements import shape_of

if TYPE_CHECKING:
    from reviewpoint_db.activity import Activity, Holder

__all__ = ["LATE", "Watch"]

#: Seconds that the event loop may be late before it is named.
LATE: Final = 0.5
#: Seconds between two beats of the loop, and between two looks at it.
_BEAT: Final = 0.1
#: Seconds between two looks at the holders. A task that ended just now may still be being released.
_ROUND: Final = 1.0
#: Frames of a blocking stack that are logged.
_FRAMES: Final = 12


class Watch:
    """Looks after one event loop and the connections of one database.

    Args:
        activity: Whose holders are looked at, and where warnings go.
        leak_threshold: Seconds after which a held connection is named.
        idle_threshold: Seconds after which a transaction in which nothing happens is named.
    """

    def __init__(self, activity: Activity, *, leak_threshold: float, idle_threshold: float) -> None:
        self._activity = activity
        self._leak_threshold = leak_threshold
        self._idle_threshold = idle_threshold
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._timer: asyncio.TimerHandle | None = None
        #: Monotonic seconds at which the loop is to beat next.
        self._due = 0.0
        self._told = False
        self._paused = False

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._told = self._paused = False
        self._schedule()
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._ended,), name="reviewpoint_db watch", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End it; may be called again, and from any loop."""
        self._ended.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._thread is not None:
            self._thread.join(timeout=1.0)
            self._thread = None

    # -- the loop -----------------------------------------------------------------------------

    def _schedule(self) -> None:
        assert self._loop is not None
        self._due = time.monotonic() + _BEAT
        self._timer = self._loop.call_later(_BEAT, self._beat)

    def _beat(self) -> None:
        now = time.monotonic()
        late = now - self._due
        if late >= LATE and not self._paused:
            self._activity.loop_late = (now, late)
            if not self._told:  # the thread could not run either
                self._say_late(late, "")
        self._told = self._paused = False
        self._schedule()

    def look_at_loop(self) -> None:
        """Name what blocks the loop at this moment, if anything does."""
        if self._loop is None or not self._loop.is_running():
            self._paused = True  # between two `run_until_complete()`, until the next beat
        late = time.monotonic() - self._due
        if late < LATE or self._told or self._paused:
            return
        self._told = True
        stack = stack_of_thread(self._loop_thread)
        deepest = " < ".join(str(frame) for frame in reversed(stack[-_FRAMES:]))
        self._say_late(late, f", blocked by {where(stack) or 'a library'}: {deepest}")

    def _say_late(self, late: float, by: str) -> None:
        assert self._loop is not None
        task = asyncio.current_task(self._loop)
        held = (holder for holder in self._activity.held() if holder.task is task is not None)
        holder = next(held, None)
        name = holder.name if holder is not None else task.get_name() if task else None
        self._activity.warn(
            "event_loop_late",
            f"The event loop is late by {late:.2f} s{f' in {name}' if name else ''}{by}. Everything "
            "waits meanwhile: move blocking work to a thread (asyncio.to_thread).",
            origin=name,
        )

    # -- the holders --------------------------------------------------------------------------

    def look_at_holders(self) -> None:
        """Name who holds a connection for too long, or does nothing inside of a transaction."""
        now = time.monotonic()
        for holder in self._activity.held():
            if holder.abandoned:
                # At the second look: its release may be under way in another task.
                if not holder.say_once("ended"):
                    self._say_leak(holder, now, "took a connection and ended without returning it")
            elif now - holder.since >= self._leak_threshold:
                self._say_leak(
                    holder, now, f"holds a connection for longer than {self._leak_threshold:g} s"
                )
            if (
                holder.state == "idle in transaction"
                and now - holder.changed >= self._idle_threshold
                and holder.say_once(f"idle since {holder.changed}")
            ):
                self._activity.warn(
                    "idle_in_transaction",
                    f"{holder.name} is idle in a transaction for {now - holder.changed:.1f} s"
                    f"{_doing(holder)}. Its locks and its connection are kept from others: end the "
                    "transaction before slow work.",
                    origin=holder.origin,
                )

    def _say_leak(self, holder: Holder, now: float, what: str) -> None:
        if not holder.say_once("leak"):
            return
        message = f"{holder.name} {what} (since {now - holder.since:.1f} s){_doing(holder)}."
        self._activity.warn("leak", message, origin=holder.origin)
        self._activity.emit("db.leak", origin=holder.name, held=now - holder.since, message=message)

    def _run(self, ended: threading.Event) -> None:
        rounds = 0.0
        # A loop that is closed without a stop would be watched for ever.
        while not (ended.wait(_BEAT) or self._loop is None or self._loop.is_closed()):
            self.look_at_loop()
            rounds += _BEAT
            if rounds >= _ROUND:
                rounds = 0.0
                self.look_at_holders()


def _doing(holder: Holder) -> str:
    """Say where a holder is at present, and what it executed last."""
    place = where(holder.stack())
    statement = f"; last statement: {shape_of(holder.statement)}" if holder.statement else ""
    return f", now in {place}{statement}" if place else statement
