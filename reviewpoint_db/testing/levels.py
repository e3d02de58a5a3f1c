"""Levels: the open transactions of a sandbox, their savepoints, and the members that have them."""

from __future__ import annotations

__all__ = ["Level", "Member", "Stack"]


class Member:
    """One stand-in for a connection, as the sandbox sees it.

    Args:
        guest: Whether it is the test's own session's.
    """

    def __init__(self, *, guest: bool = False) -> None:
        self.guest = guest
        self.level: Level | None = None
        self.gone = False


class Level:
    """An open transaction of a member: a savepoint, and those that the member sets in it."""

    def __init__(self, name: str, party: object, origin: str, *, guest: bool) -> None:
        self.name = name
        self.party = party
        self.origin = origin
        self.guest = guest
        #: Whether a statement failed, so that all others are refused until a rollback.
        self.failed = False
        #: Whether what is below was rolled back, and this with it.
        self.lost = False


class _Savepoint:
    """A savepoint, and who changed something between it and the next one; None has committed."""

    def __init__(self, name: str, level: Level) -> None:
        self.name = name
        self.level = level
        self.writers: set[Level | None] = set()


class Stack:
    """The savepoints of all levels in the server's order: to go back to one undoes all above it."""

    def __init__(self) -> None:
        self._savepoints: list[_Savepoint] = []

    def push(self, name: str, level: Level) -> None:
        """Note a savepoint that was set."""
        self._savepoints.append(_Savepoint(name, level))

    def find(self, level: Level, name: str) -> int | None:
        """Return where a level's savepoint is; of several of that name, the latest."""
        for at in range(len(self._savepoints) - 1, -1, -1):
            if self._savepoints[at].level is level and self._savepoints[at].name == name:
                return at
        return None

    def last(self, level: Level) -> str | None:
        """Return the savepoint that a failure of the level may go back to, and undo nobody else's."""
        last = self._savepoints[-1]
        return last.name if last.level is level and last.writers <= {level} else None

    def note_write(self, level: Level | None) -> None:
        """Note that a level changed something; None commits at once."""
        if self._savepoints:
            self._savepoints[-1].writers.add(level)

    def note_commit(self, level: Level) -> None:
        """Note that what a level changed is to stay."""
        for savepoint in self._savepoints:
            if level in savepoint.writers:
                savepoint.writers ^= {level, None}

    def wrote(self, level: Level, at: int) -> bool:
        """Whether a level changed something since a savepoint."""
        return level in self._writers(at)

    def others_wrote(self, level: Level, at: int) -> bool:
        """Whether going back to a savepoint would undo what others committed, or began before."""
        return any(
            one is None or (one is not level and (self.find(one, one.name) or 0) < at)
            for one in self._writers(at)
        )

    def _writers(self, at: int) -> set[Level | None]:
        return set[Level | None]().union(*(one.writers for one in self._savepoints[at:]))

    def above(self, at: int) -> list[str]:
        """Return the names of what is above a savepoint, from the top down."""
        return [one.name for one in self._savepoints[:at:-1]]

    def is_alone(self, level: Level, at: int) -> bool:
        """Whether all from a savepoint on is the level's."""
        return all(one.level is level for one in self._savepoints[at:])

    def merge(self, level: Level, at: int) -> None:
        """Forget the level's savepoints from one on; what happened since then stays."""
        kept = self._savepoints[:at]
        for one in self._savepoints[at:]:
            if one.level is not level:
                kept.append(one)
            elif kept:
                kept[-1].writers |= one.writers
        self._savepoints = kept

    def undo(self, at: int) -> None:
        """Forget what is above a savepoint, and what happened since it was set."""
        gone = self._savepoints[at + 1 :]
        del self._savepoints[at + 1 :]
        self._savepoints[at].writers.clear()
        for one in gone:
            one.level.lost = one.level.lost or one.name == one.level.name

    def clear(self) -> None:
        """Forget everything: all is lost."""
        for one in self._savepoints:
            one.level.lost = True
        self._savepoints.clear()
