"""Faults: outages that a test makes, to see what its application does in them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final, Protocol

__all__ = ["DriverErrors", "Faults"]

_REFUSED: Final = "Connect call failed: refused by db_faults"


class DriverErrors(Protocol):
    """How a driver says what has happened."""

    def lost(self, why: str) -> Exception:
        """Make the error of a connection that is no more."""

    def conflict(self) -> Exception:
        """Make the error of a COMMIT that lost against another transaction."""


class Faults:
    """The outages of one test, in its sandbox: what the fixture `db_faults` gives.

    The test's own `db_session` is spared. All ends with the test.

    Example:
        >>> db_faults.drop_connections()      # as a restarted server does
        >>> with db_faults.refuse():          # as a stopped one
        ...     assert (await client.get("/papers")).status_code == 503
    """

    def __init__(self) -> None:
        #: Counts the droppings: a connection that is older than the last one is dead.
        self.generation = 0
        self._refusing = 0
        self._seconds = 0.0
        self._failing_commits = 0

    def drop_connections(self) -> None:
        """Cut every connection that is open now; new ones work."""
        self.generation += 1

    @contextlib.contextmanager
    def refuse(self) -> Iterator[None]:
        """Cut every connection, and refuse new ones for the length of a block."""
        self.drop_connections()
        self._refusing += 1
        try:
            yield
        finally:
            self._refusing -= 1

    @contextlib.contextmanager
    def latency(self, seconds: float) -> Iterator[None]:
        """Have each round trip take `seconds` longer for the length of a block."""
        before, self._seconds = self._seconds, seconds
        try:
            yield
        finally:
            self._seconds = before

    def fail_commit(self, times: int = 1) -> None:
        """Have the next COMMITs fail as a serialization conflict does: nothing is stored.

        Args:
            times: How many of them.
        """
        self._failing_commits += times

    # -- what the stand-ins ask -------------------------------------------------------------

    async def on_connect(self) -> None:
        """Refuse or delay a new connection."""
        await self.on_round_trip()
        if self._refusing:
            raise ConnectionRefusedError(_REFUSED)

    async def on_round_trip(self) -> None:
        """Delay a round trip."""
        if self._seconds:
            await asyncio.sleep(self._seconds)

    def takes_commit(self) -> bool:
        """Whether the COMMIT at hand is to fail."""
        if not self._failing_commits:
            return False
        self._failing_commits -= 1
        return True
