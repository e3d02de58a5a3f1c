"""Turns: one party at a time has transactions in a sandbox; the others wait in their order."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Turns"]


class Turns:
    """Who may have transactions now: one party, as often as it likes; the others in their order."""

    def __init__(self) -> None:
        self._party: object = None
        self.holder = ""
        self._count = 0
        self._waiting: deque[tuple[object, str, asyncio.Future[None]]] = deque()

    async def take(self, party: object, origin: str, timeout: float) -> bool:
        """Wait for the party's turn; False when it did not come within `timeout` seconds."""
        if self._is_free_for(party):
            self._admit(party, origin)
            return True
        served = asyncio.get_running_loop().create_future()
        self._waiting.append((party, origin, served))
        try:
            # Not asyncio.timeout(): a cancellation that ends well is lost on tracers of Python 3.11.
            await asyncio.wait([served], timeout=timeout)
        except BaseException:
            self._give_up(party, served)
            raise
        if not served.done():
            self._give_up(party, served)
            return False
        return True

    def _is_free_for(self, party: object) -> bool:
        return not self._count or self._party is party

    def _give_up(self, party: object, served: asyncio.Future[None]) -> None:
        if served.done():  # in the same moment
            self.leave(party)
        self._waiting = deque(one for one in self._waiting if one[2] is not served)

    def _admit(self, party: object, origin: str) -> None:
        self._party, self.holder = party, origin
        self._count += 1

    def leave(self, party: object) -> None:
        """Give a turn back; the last one of the party lets the next party in."""
        assert party is self._party
        self._count -= 1
        if self._count:
            return
        self._party = None
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            party, origin, served = entry
            if self._is_free_for(party):
                self._admit(party, origin)
                served.set_result(None)
            else:
                self._waiting.append(entry)
