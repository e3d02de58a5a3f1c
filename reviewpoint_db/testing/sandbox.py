"""Sandbox: one outer transaction that everything in a test happens inside of, and that is undone.

The real connection lives in the kit's loop. Each connection of an application is a stand-in
(`standins.py`) that has its statements run here. Its transactions become savepoints on a stack:

* *Turns*: one party (a request, or else a task) has transactions at a time; the others wait for
  their turn in the order of arrival. One party's transactions may nest.
* *COMMIT* checks the deferred constraints, as a real one does, and keeps the savepoint's changes.
* The test's own session, the *guest*, takes no turn: applications work on top of what it has open.

Everything here runs in the kit's loop.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from reviewpoint_db.testing.errors import SandboxError, SandboxEscapeError
from reviewpoint_db.testing.ground import Ground
from reviewpoint_db.testing.levels import Level, Member
from reviewpoint_db.testing.turns import Turns

__all__ = ["Sandbox"]

_T = TypeVar("_T")
#: Seconds that a party waits for its turn.
TURN_TIMEOUT: Final = 10.0
#: Statements that a guard's savepoint around them would disturb.
_CONTROL: Final = re.compile(r"\s*(SAVEPOINT|RELEASE|ROLLBACK)\b", re.IGNORECASE)
_READING: Final = re.compile(r"\s*(SELECT|SHOW|VALUES|TABLE|EXPLAIN|PRAGMA)\b", re.IGNORECASE)


class Sandbox:
    """The one outer transaction of a test.

    Args:
        ground: The real connection.
        turn_timeout: Seconds that a party waits for its turn.
    """

    def __init__(self, ground: Ground, *, turn_timeout: float = TURN_TIMEOUT) -> None:
        self.ground = ground
        self.turn_timeout = turn_timeout
        #: What ended the outer transaction, if anything did.
        self.escaped: str | None = None
        #: What members did to the connection once for all of them.
        self.known: set[object] = set()
        self._closed = self._finished = False
        self._levels: list[Level] = []
        self._numbers = itertools.count(1)
        self._wire = asyncio.Lock()
        self._turns = Turns()

    async def open(self) -> None:
        """Begin."""
        await self.ground.begin()

    def finish(self) -> None:
        """From now on the test's session ends without a word about what is lost: all is."""
        self._finished = True

    async def close(self) -> None:
        """Undo all that happened; what still wants to work here is refused."""
        self._closed = True
        async with self._wire:
            await self.ground.undo()
        for level in self._levels:
            level.lost = True
        self._levels.clear()

    # -- transactions -----------------------------------------------------------------------

    async def begin(
        self, member: Member, party: object, origin: str, *, read_only: bool = False
    ) -> None:
        """Open a transaction for a member, at its party's turn.

        Raises:
            SandboxError: The turn did not come in time.
        """
        await self._take_turn(party, origin)
        level = Level(f"rpdb_{next(self._numbers)}", party, origin, guest=member.guest)
        try:
            async with self._wire:
                await self.ground.run(f"SAVEPOINT {level.name}")
                if read_only:
                    await self.ground.run("SET TRANSACTION READ ONLY")
                self._levels.append(level)
            member.level = level
        except BaseException:
            self._turns.leave(party)
            raise
        if member.guest:
            self._turns.leave(party)
        elif member.gone:
            await self.rollback(member)

    async def commit(self, member: Member) -> None:
        """End a member's transaction and keep its changes, unless a deferred constraint says no."""
        level, member.level = member.level, None
        if level is None:
            return
        try:
            self._refuse_lost(level)
            async with self._wire:
                if level is not self._levels[-1]:
                    # Something of its own is still open on top: its savepoint ends with the test.
                    self._levels.remove(level)
                    return
                try:
                    await self.ground.check_deferred()
                except BaseException:
                    await self._undo(level)
                    raise
                await self.ground.run(f"RELEASE SAVEPOINT {level.name}")
                self._levels.remove(level)
                if not level.guest:
                    for below in self._levels:
                        below.built_upon = True
        finally:
            self._leave(level)

    async def rollback(self, member: Member) -> None:
        """End a member's transaction and undo its changes.

        Raises:
            SandboxError: Applications committed since, and their changes would be lost.
        """
        level, member.level = member.level, None
        if level is None:
            return
        try:
            if level.guest and not self._closed:
                await self._take_turn(level.party, level.origin)
                self._turns.leave(level.party)
            async with self._wire:
                if level in self._levels:
                    await self._roll_back(level)
        finally:
            self._leave(level)

    async def _roll_back(self, level: Level) -> None:
        if not (level.guest and level.built_upon):
            await self._undo(level)
            return
        self._levels.remove(level)
        if level.wrote and not self._finished:
            msg = (
                "The test's session changed something, then the application committed, and now the "
                "session is to be rolled back: in the sandbox that would undo the application's "
                "commit too. Commit the session before the application is called, or use db_clone."
            )
            raise SandboxError(msg)

    async def _undo(self, level: Level) -> None:
        await self.ground.run(f"ROLLBACK TO SAVEPOINT {level.name}")
        await self.ground.run(f"RELEASE SAVEPOINT {level.name}")
        at = self._levels.index(level)
        for above in self._levels[at:]:
            above.lost = True
        del self._levels[at:]

    def _refuse_lost(self, level: Level) -> None:
        if level.lost:
            raise SandboxError(
                f"The transaction of {level.origin} was undone, because another one of the same "
                "request, which began before it, was rolled back first. The sandbox has one "
                "connection, where transactions nest; use db_clone for this test."
            )

    def _leave(self, level: Level) -> None:
        if not level.guest:
            self._turns.leave(level.party)

    async def drop(self, member: Member) -> None:
        """Roll back what a member has open, because it is gone."""
        member.gone = True
        level = member.level
        if level is not None and not (level.guest and level.built_upon):
            await self.rollback(member)

    # -- statements -------------------------------------------------------------------------

    async def run(
        self,
        member: Member,
        party: object,
        origin: str,
        text: str,
        work: Callable[[], Awaitable[_T]],
    ) -> _T:
        """Run a statement of a member, in its transaction or, outside of one, by itself.

        Args:
            member: Whose statement it is.
            party: Who waits for it.
            origin: Names the party.
            text: The statement, as far as it is known.
            work: Sends it.

        Raises:
            SandboxEscapeError: It ended the outer transaction.
        """
        level = member.level
        if level is not None:
            self._refuse_lost(level)
            level.wrote = level.wrote or not _READING.match(text)
            async with self._wire:
                return await self._send(text, origin, work, guarded=level.guest)
        await self._take_turn(party, origin)
        try:
            async with self._wire:
                return await self._send(text, origin, work, guarded=True)
        finally:
            self._turns.leave(party)

    async def _send(
        self, text: str, origin: str, work: Callable[[], Awaitable[_T]], *, guarded: bool
    ) -> _T:
        """Send a statement; guarded, its failure leaves what is around it as it was."""
        guarded = guarded and self.ground.fragile and not _CONTROL.match(text)
        if guarded:
            await self.ground.run("SAVEPOINT rpdb_guard")
        try:
            result = await work()
        except BaseException:
            if not self.ground.open:
                await self._escape(text, origin)
            if guarded:
                await self.ground.run("ROLLBACK TO SAVEPOINT rpdb_guard")
                await self.ground.run("RELEASE SAVEPOINT rpdb_guard")
            raise
        if not self.ground.open:
            await self._escape(text, origin)
        if guarded:
            await self.ground.run("RELEASE SAVEPOINT rpdb_guard")
        return result

    async def _escape(self, text: str, origin: str) -> None:
        self.escaped = f"{origin} executed {text.strip()!r}"
        for level in self._levels:
            level.lost = True
        self._levels.clear()
        # Whatever comes now must not be stored for good.
        await self.ground.begin()
        raise SandboxEscapeError(
            f"{self.escaped}, which ended the sandbox's transaction: what the test did so far was "
            "stored, or undone. Use session.commit() and session.rollback(), or db_clone."
        )

    async def _take_turn(self, party: object, origin: str) -> None:
        if self._closed:
            raise SandboxError(f"{origin} uses a connection of a test that is over.")
        if not await self._turns.take(party, origin, self.turn_timeout):
            raise SandboxError(
                f"{origin} waited {self.turn_timeout:g} s for its turn: {self._turns.holder} has a "
                "transaction open, and the sandbox has one connection for all. End that one first "
                "(the fixture db_session takes no turn), or use db_clone for this test."
            )
