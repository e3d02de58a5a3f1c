"""Levels: the open transactions of a sandbox, each a savepoint, and the members that have them."""

from __future__ import annotations

__all__ = ["Level", "Member"]


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
    """An open transaction of a member: a savepoint."""

    def __init__(self, name: str, party: object, origin: str, *, guest: bool) -> None:
        self.name = name
        self.party = party
        self.origin = origin
        self.guest = guest
        #: Whether it changed something.
        self.wrote = False
        #: Whether an application committed on top of it.
        self.built_upon = False
        #: Whether what is below was rolled back, and this with it.
        self.lost = False
