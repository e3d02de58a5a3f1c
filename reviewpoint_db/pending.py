"""Whether migrations are pending, asked so rarely that health checks may ask it each time."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["PendingMigrations", "RevisionsOf"]

#: Returns the revisions that the database is at, and those that the scripts lead to.
RevisionsOf = Callable[["AsyncEngine"], Awaitable[tuple[set[str], set[str]]]]

#: Seconds between two looks while something is pending.
_AGAIN: Final = 5.0


class PendingMigrations:
    """Remembers what the last look found; once all is applied nobody looks again.

    A process has the scripts that it was started with: what they lead to does not change.

    Args:
        revisions_of: Looks.
    """

    def __init__(self, revisions_of: RevisionsOf) -> None:
        self._revisions_of = revisions_of
        self._applied = False
        self._found: str | None = None
        self._next_look = float("-inf")

    async def look(self, engine: AsyncEngine) -> str | None:
        """Return what is pending in words, or None.

        Args:
            engine: Of the running loop.
        """
        if self._applied or time.monotonic() < self._next_look:
            return self._found
        current, heads = await self._revisions_of(engine)
        self._next_look = time.monotonic() + _AGAIN
        self._applied = current == heads
        self._found = None
        if not self._applied:
            at, to = (", ".join(sorted(names)) or "nothing" for names in (current, heads))
            self._found = f"the database is at {at}, the migrations lead to {to}"
        return self._found
