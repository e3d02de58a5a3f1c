"""What took longest in the last hour, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import Final

import msgspec

__all__ = ["SlowSnapshot", "Slowest"]

#: Seconds that are remembered.
_REMEMBERED: Final = 3600.0
#: Seconds of one part; parts are forgotten as a whole.
_PART: Final = 600.0
#: Names that one part counts apart; beyond that, those that took least in total are dropped.
_NAMES: Final = 300
#: Characters of a name.
_LONGEST: Final = 1000


class SlowSnapshot(msgspec.Struct, frozen=True):
    """Something that happened repeatedly; times are in seconds.

    Args:
        name: The handler of a session, the shape of a statement.
        count: How often it happened in the last hour.
        total: How long it took altogether.
        maximum: How long it took at most.
        origin: For whom it took longest.
    """

    name: str
    count: int
    total: float
    maximum: float
    origin: str | None


class _Entry:
    __slots__ = ("count", "maximum", "origin", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0
        self.origin: str | None = None


class Slowest:
    """Counts and times by name, over the last hour.

    Args:
        shown: Makes of a name what may be shown; names of one text are counted together.
        but_of: Whose own are not told of: ours, which nobody can make faster.
    """

    def __init__(self, shown: Callable[[str], str] = str, *, but_of: str | None = None) -> None:
        self._shown = shown
        self._but_of = but_of
        self._parts: deque[tuple[float, dict[str, _Entry]]] = deque()
        self._present: dict[str, _Entry] = {}
        self._until = float("-inf")

    def record(
        self, name: str, seconds: float, now: float, origin: Callable[[], str | None]
    ) -> None:
        """Add one duration.

        Args:
            name: What it was.
            seconds: How long it took.
            now: Monotonic seconds.
            origin: Names for whom it was; called when this one took longest.
        """
        if now >= self._until:
            self._turn(now)
        if len(name) > _LONGEST:
            name = name[:_LONGEST]
        entry = self._present.get(name)
        if entry is None:
            entry = self._add(name)
        entry.count += 1
        entry.total += seconds
        if seconds > entry.maximum:
            entry.maximum = seconds
            entry.origin = origin()

    def _turn(self, now: float) -> None:
        self._present = {}
        self._parts.append((now, self._present))
        self._until = now + _PART
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._parts and self._parts[0][0] < now - _REMEMBERED:
            self._parts.popleft()

    def _add(self, name: str) -> _Entry:
        if len(self._present) >= _NAMES:
            by_total = sorted(
                ((entry.total, name) for name, entry in self._present.items()), key=itemgetter(0)
            )
            for _, least in by_total[: _NAMES // 3]:
                del self._present[least]
        entry = self._present[name] = _Entry()
        return entry

    def snapshot(self, now: float, limit: int = 20) -> tuple[SlowSnapshot, ...]:
        """Return those that took longest, the longest first.

        Args:
            now: Monotonic seconds.
            limit: How many.
        """
        self._forget(now)
        merged: dict[str, _Entry] = {}
        for _, part in self._parts:
            for name, entry in part.items():
                into = merged.setdefault(self._shown(name), _Entry())
                into.count += entry.count
                into.total += entry.total
                if entry.maximum > into.maximum:
                    into.maximum, into.origin = entry.maximum, entry.origin
        told = (
            SlowSnapshot(name, entry.count, entry.total, entry.maximum, entry.origin)
            for name, entry in merged.items()
            if entry.origin is None or entry.origin != self._but_of
        )
        return tuple(sorted(told, key=lambda each: each.maximum, reverse=True)[:limit])
