"""Watch: a thread that says what lasts too long, even while the event loop is blocked.

It looks at two things: whether the event loops still beat, and what those who hold connections do. What
it has to say is said once an episode, with the handler's name. A database that could not be reached
is tried again from time to time, so that its return is noticed where nobody asks for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

from reviewpoint_db.forks import on_fork
from reviewpoint_db.lateness import BEAT, Beat, beat_of, forget_beats
from reviewpoint_db.stacks import where
from reviewpoint_db.statements import shape_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reviewpoint_db.activity import Activity, Holder

__all__ = ["Watch"]

_Fault = Literal["ended", "held", "idle"]

#: Seconds between two looks at the holders. A task that ended just now may still be being released.
_ROUND: Final = 1.0
#: Seconds after the last failure to reach the database.
_AGAIN: Final = 5.0


class Watch:
    """Looks after the event loops and the connections of one database.

    Args:
        activity: Whose holders are looked at, and where warnings go.
        leak_threshold: Seconds after which a held connection is named.
        idle_threshold: Seconds after which a transaction in which nothing happens is named.
        try_again: Begins to try whether the database can be reached; called in a loop.
    """

    def __init__(
        self,
        activity: Activity,
        *,
        leak_threshold: float,
        idle_threshold: float,
        try_again: Callable[[], None] | None = None,
    ) -> None:
        self._activity = activity
        self._leak_threshold = leak_threshold
        self._idle_threshold = idle_threshold
        self._try_again = try_again
        self._begin()
        on_fork(self)

    def _begin(self) -> None:
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._beats: tuple[Beat, ...] = ()
        #: Set while nothing is watched.
        self._ended = threading.Event()
        self._ended.set()

    def forget_parent(self) -> None:
        """Begin in a forked child, which has no thread that watches."""
        self._begin()
        forget_beats()

    def start(self) -> None:
        """Begin to watch, the running loop first."""
        self._ended = threading.Event()
        self.join_loop()

    def join_loop(self) -> None:
        """Watch the running loop too, as far as there is one and anything is watched."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        with self._lock:
            if self._ended.is_set():
                return
            if all(beat.loop is not loop for beat in self._beats):
                self._beats = (*self._beats, beat_of(self._activity))
            if self._thread is None:  # or it has ended, since all loops before were closed
                self._thread = threading.Thread(
                    target=self._run, args=(self._ended,), name="reviewpoint_db watch", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """End it; may be called again, and from any loop."""
        self._ended.set()
        with self._lock:
            beats, self._beats = self._beats, ()
            thread, self._thread = self._thread, None
        for beat in beats:
            beat.leave(self._activity)
        if thread is not None:
            thread.join(timeout=1.0)

    def look_at_loops(self) -> None:
        """Name what blocks a loop at this moment, if anything does."""
        for beat in self._beats:
            if beat.loop.is_closed():
                beat.leave(self._activity)
            else:
                beat.look()
        with self._lock:
            self._beats = tuple(beat for beat in self._beats if not beat.loop.is_closed())

    # -- the holders --------------------------------------------------------------------------

    def look_at_holders(self) -> None:
        """Name who holds a connection for too long, or does nothing inside of a transaction.

        Those of one handler who are in the same place are one warning: hundreds come at once.
        """
        now = time.monotonic()
        found: dict[tuple[_Fault, str, str | None], list[Holder]] = {}
        for holder in self._activity.held():
            for fault in self._faults(holder, now):
                key = (fault, holder.handler or holder.task_name, where(holder.stack()))
                found.setdefault(key, []).append(holder)
        for (fault, who, place), holders in found.items():
            name = who if len(holders) > 1 else holders[0].name
            if fault == "idle":
                self._say_idle(name, place, holders, now)
            else:
                self._say_leak(fault, name, place, holders, now)

    def _faults(self, holder: Holder, now: float) -> Iterator[_Fault]:
        """Give what is to be said of a holder and was not said yet."""
        if holder.abandoned:
            # At the second look: its release may be under way in another task.
            if not holder.say_once("ended") and holder.say_once("leak"):
                yield "ended"
        elif now - holder.since >= self._leak_threshold and holder.say_once("leak"):
            yield "held"
        if (
            holder.state == "idle in transaction"
            and now - holder.changed >= self._idle_threshold
            and holder.say_once(f"idle since {holder.changed}")
        ):
            yield "idle"

    def _say_leak(
        self, fault: _Fault, name: str, place: str | None, holders: list[Holder], now: float
    ) -> None:
        oldest, count = holders[0], len(holders)  # the longest first
        several = count > 1
        connections = f"{count} connections" if several else "a connection"
        if fault == "ended":
            what = f"took {connections} and ended without returning {'them' if several else 'it'}"
        else:
            what = f"holds {connections} for longer than {self._leak_threshold:g} s"
        since = f"{'the oldest ' if several else ''}since {now - oldest.since:.1f} s"
        message = f"{name} {what} ({since}){_doing(oldest, place)}."
        self._activity.warn("leak", message, origin=oldest.origin)
        self._activity.emit("db.leak", origin=name, held=now - oldest.since, message=message)

    def _say_idle(self, name: str, place: str | None, holders: list[Holder], now: float) -> None:
        oldest = min(holders, key=lambda holder: holder.changed)
        long = f"{now - oldest.changed:.1f} s{_doing(oldest, place)}"
        if len(holders) > 1:
            message = (
                f"{name} is idle in {len(holders)} transactions, the oldest for {long}. Their locks "
                "and connections are kept from others: end the transactions before slow work."
            )
        else:
            message = (
                f"{name} is idle in a transaction for {long}. Its locks and its connection are kept "
                "from others: end the transaction before slow work."
            )
        self._activity.warn("idle_in_transaction", message, origin=oldest.origin)

    # -- the database -------------------------------------------------------------------------

    def look_at_database(self) -> None:
        """Have a database tried again that could not be reached, and nobody has asked since."""
        failure = self._activity.reachability.failure
        if failure is None or time.monotonic() - failure.last < _AGAIN or self._try_again is None:
            return
        for beat in self._beats[:1]:
            with suppress(RuntimeError):  # it was closed just now
                beat.loop.call_soon_threadsafe(self._try_again)

    def _out_of_work(self, ended: threading.Event) -> bool:
        """Whether the thread is to end; the next loop that joins starts another one."""
        with self._lock:
            if self._beats:
                return False
            if not ended.is_set():  # else it is no longer this one's place
                self._thread = None
            return True

    def _run(self, ended: threading.Event) -> None:
        rounds = 0.0
        # Loops that are closed without a stop would be watched for ever.
        while not ended.wait(BEAT) and not self._out_of_work(ended):
            self.look_at_loops()
            rounds += BEAT
            if rounds >= _ROUND:
                rounds = 0.0
                self.look_at_holders()
                self.look_at_database()
                self._activity.answers.tell_due()


def _doing(holder: Holder, place: str | None) -> str:
    """Say where a holder is at present, and what it executed last."""
    statement = f"; last statement: {shape_of(holder.statement)}" if holder.statement else ""
    return f", now in {place}{statement}" if place else statement
