"""Sandbox: one outer transaction that everything in a test happens inside of, and that is undone.

The real connection lives in the kit's loop. Each connection of an application is a stand-in
(`postgresql.py`, `sqlite.py`) that has its statements run here. Its transactions become savepoints on a stack
(`levels.py`), and `wire.py` sends what they execute:

* *Turns*: one party (a request, or else a task) has transactions at a time; the others wait for
  their turn in the order of arrival. One party's transactions may nest.
* *COMMIT* checks the deferred constraints, as a real one does, and keeps the savepoint's changes.
* *ROLLBACK* that would undo what others committed since is refused.
* *A statement that fails* has its own transaction answer as PostgreSQL does until the rollback; the
  connection itself goes back to the last savepoint at once, since others go on using it.
* The test's own session, the *guest*, takes no turn: applications work on top of what it has open.

Everything here runs in the kit's loop.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from reviewpoint_db.testing.commands import savepoint_in
from reviewpoint_db.testing.errors import SandboxError
from reviewpoint_db.testing.ground import Ground
from reviewpoint_db.testing.levels import Level, Member
from reviewpoint_db.testing.turns import Turns
from reviewpoint_db.testing.wire import Wire

__all__ = ["Sandbox"]

_T = TypeVar("_T")
#: Seconds that a party waits for its turn.
TURN_TIMEOUT: Final = 10.0


class Sandbox:
    """The one outer transaction of a test.

    Args:
        ground: The real connection.
        test: Names the test.
        turn_timeout: Seconds that a party waits for its turn.
    """

    def __init__(
        self, ground: Ground, *, test: str = "a test", turn_timeout: float = TURN_TIMEOUT
    ) -> None:
        self.turn_timeout = turn_timeout
        #: What members did to the connection once for all of them.
        self.known: set[object] = set()
        self._numbers = itertools.count(1)
        self._wire = Wire(ground, test)
        self._turns = Turns()

    @property
    def escaped(self) -> str | None:
        """Says what ended the outer transaction, if anything did."""
        return self._wire.escaped

    @property
    def refused(self) -> str | None:
        """Says what an application was refused, which it may have caught."""
        return self._wire.refused

    @property
    def over(self) -> bool:
        """Whether the test is, so that whoever still wants to work here is refused."""
        return self._wire.over

    async def open(self) -> None:
        """Begin."""
        await self._wire.ground.begin()

    def finish(self) -> None:
        """From now on the test's session ends without a word about what is lost: all is."""
        self._wire.ending = True

    async def close(self) -> None:
        """Undo all that happened; what still wants to work here is refused."""
        self._wire.over = True
        async with self._wire.lock:
            await self._wire.ground.undo()
        self._wire.stack.clear()

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
            async with self._wire.lock:
                await self._wire.begin(level, read_only=read_only)
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
            async with self._wire.lock:
                await self._wire.commit(level)
        finally:
            self._leave(level)

    async def rollback(self, member: Member) -> None:
        """End a member's transaction and undo its changes.

        Raises:
            SandboxError: Others committed since, and their changes would be lost.
        """
        level, member.level = member.level, None
        if level is None:
            return
        try:
            if level.guest and not self._wire.over:
                await self._await_others(level)
            async with self._wire.lock:
                if not level.lost:
                    await self._wire.undo(level, level.name, ends=True)
        finally:
            self._leave(level)

    def _leave(self, level: Level) -> None:
        if not level.guest:
            self._turns.leave(level.party)

    async def _await_others(self, level: Level) -> None:
        """Wait until no other party has something open, which would be undone too."""
        await self._take_turn(level.party, level.origin)
        self._turns.leave(level.party)

    async def drop(self, member: Member) -> None:
        """Roll back what a member has open, because it is gone."""
        member.gone = True
        with contextlib.suppress(SandboxError):  # who waits for this did not ask for a rollback
            await self.rollback(member)

    # -- statements -------------------------------------------------------------------------

    async def run(
        self,
        member: Member,
        party: object,
        origin: str,
        text: str,
        work: Callable[[], Awaitable[_T]],
        *,
        prepares: bool = False,
    ) -> _T:
        """Run a statement of a member, in its transaction or, outside of one, by itself.

        Args:
            member: Whose statement it is.
            party: Who waits for it.
            origin: Names the party.
            text: The statement, as far as it is known.
            work: Sends it.
            prepares: Whether that prepares it, and does no more.

        Raises:
            SandboxEscapeError: It ended the outer transaction.
        """
        level = member.level
        if level is not None:
            if not prepares and level.guest and savepoint_in(text)[0] == "ROLLBACK":
                await self._await_others(level)
            async with self._wire.lock:
                return await self._wire.run_in(level, origin, text, work, prepares=prepares)
        await self._take_turn(party, origin)
        try:
            async with self._wire.lock:
                return await self._wire.run_alone(origin, text, work, prepares=prepares)
        finally:
            self._turns.leave(party)

    async def set_up(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Run what changes the real connection for all, at no one's turn."""
        async with self._wire.lock:
            return await self._wire.send("", "", work, guarded=True)

    async def _take_turn(self, party: object, origin: str) -> None:
        self._wire.refuse_late(origin)
        if not await self._turns.take(party, origin, self.turn_timeout):
            raise SandboxError(
                f"{origin} waited {self.turn_timeout:g} s for its turn: {self._turns.holder} has a "
                "transaction open, and the sandbox has one connection for all. End that one first "
                "(the fixture db_session takes no turn), or use db_clone for this test."
            )
