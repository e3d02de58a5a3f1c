"""Standing: whether a queue is an overload, and how many may wait in it then. No I/O, no clock."""

from __future__ import annotations

from typing import Final

__all__ = ["Standing"]

#: Seconds in which nobody is served within the target: then the queue stands.
_WINDOW: Final = 0.5


class Standing:
    """Whether the queue is one that stands: CoDel's rule, as Elixir's db_connection has it.

    A burst makes a queue that goes away. A queue in which nobody is served within the target for a
    whole window stands, and its waiters use up the time that their clients allow. It no longer stands
    when a waiter is served in time or none is left, and none was refused for a window: refusals make
    the queue short without ending the overload.

    Args:
        target: Seconds of waiting that are acceptable.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.stands = False
        #: Since when all who were served had waited for longer.
        self._late_since: float | None = None
        self._refused = float("-inf")
        #: How many were served since then, and how many a second in the window before.
        self._served = (0, float("-inf"))
        self._rate = 0.0

    def served(self, now: float, waited: float, *, left: bool) -> None:
        """Note how long one has waited who is served now, and whether others are left waiting."""
        self._count(now)
        if not left or waited <= self.target:
            self._late_since = None
            self.stands = self.stands and now - self._refused < _WINDOW
        elif self._late_since is None:
            self._late_since = now
        elif now - self._late_since >= _WINDOW:
            self.stands = True

    def _count(self, now: float) -> None:
        number, since = self._served
        if now - since < _WINDOW:
            self._served = number + 1, since
        else:
            self._rate, self._served = number / (now - since), (1, now)

    def refused(self, now: float) -> None:
        """Note that one was refused."""
        self._refused = now

    @property
    def patience(self) -> float:
        """How long one may wait at present."""
        return 2 * self.target if self.stands else float("inf")

    @property
    def places(self) -> float:
        """How many may wait at present: as many as are served before their patience ends."""
        return self._rate * self.patience if self.stands else float("inf")
