"""Sandbox: one outer transaction that everything in a test happens inside of, and that is undone.

The real connection lives in the kit's loop. Each connection of an application is a stand-in
(`postgresql.py`, `sqlite.py`) that has its statements run here. Its transactions become savepoints on a stack:

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

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from reviewpoint_db.testing.commands import is_control, is_reading, is_rollback, savepoint_in
from reviewpoint_db.testing.errors import SandboxError, SandboxEscapeError
from reviewpoint_db.testing.ground import Ground
from reviewpoint_db.testing.levels import Level, Member, Stack
from reviewpoint_db.testing.turns import Turns

__all__ = ["Sandbox"]

_T = TypeVar("_T")
#: Seconds that a party waits for its turn.
TURN_TIMEOUT: Final = 10.0


class Sandbox:
    """The one outer transaction of a test.

    Args:
        ground: The real connection.
        turn_timeout: Seconds that a party waits for its turn.
    """

    def __init__(self, ground: Ground, *, turn_timeout: float = TURN_TIMEOUT) -> None:
        self.ground = ground
        self.turn_timeout = turn_timeout
        #: Says what ended the outer transaction, if anything did.
        self.escaped: str | None = None
        #: What an application was refused, which it may have caught.
        self.refused: str | None = None
        #: What members did to the connection once for all of them.
        self.known: set[object] = set()
        self._closed = self._finished = False
        self._stack = Stack()
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
        self._stack.clear()

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
                self._stack.push(level.name, level)
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
            async with self._wire:
                self._refuse_lost(level)
                if level.failed:  # as PostgreSQL answers it
                    await self._undo(level, level.name, ends=True)
                    return
                if self._stack.is_alone(level, self._at(level)):
                    await self._release(level)
                # Else something of its own is still open on top: its savepoint ends with the test.
                self._stack.merge(level, self._at(level))
                self._stack.note_commit(level)
        finally:
            self._leave(level)

    async def _release(self, level: Level) -> None:
        try:
            await self.ground.check_deferred()
        except BaseException:
            await self._undo(level, level.name, ends=True)
            raise
        await self.ground.run(f"RELEASE SAVEPOINT {level.name}")

    async def rollback(self, member: Member) -> None:
        """End a member's transaction and undo its changes.

        Raises:
            SandboxError: Others committed since, and their changes would be lost.
        """
        level, member.level = member.level, None
        if level is None:
            return
        try:
            if level.guest and not self._closed:
                await self._await_others(level)
            async with self._wire:
                if not level.lost:
                    await self._undo(level, level.name, ends=True)
        finally:
            self._leave(level)

    async def _undo(self, level: Level, name: str, *, ends: bool) -> None:
        """Go back to a savepoint of a level, which ends with it or goes on from there."""
        at = self._stack.find(level, name)
        assert at is not None
        if self._stack.others_wrote(level, at):
            wrote = self._stack.wrote(level, at)
            self._stack.merge(level, at)
            if wrote:
                self._refuse_rollback(level)
            return
        await self.ground.run(f"ROLLBACK TO SAVEPOINT {name}")
        self._stack.undo(at)
        if ends:
            await self.ground.run(f"RELEASE SAVEPOINT {name}")
            self._stack.merge(level, at)

    def _refuse_rollback(self, level: Level) -> None:
        if self._finished:
            return
        if level.guest:
            raise SandboxError(
                "The test's session changed something, then the application committed, and now the "
                "session is to be rolled back: in the sandbox that would undo the application's "
                "commit too. Commit the session before the application is called, or use db_clone."
            )
        self.refused = (
            f"{level.origin} changed something, then another session committed before the first "
            "one ended, and now the first one is to be rolled back. The sandbox has one "
            "connection, where transactions nest: that would undo the commit too. Use db_clone for "
            "this test."
        )
        raise SandboxError(self.refused)

    def _at(self, level: Level) -> int:
        at = self._stack.find(level, level.name)
        assert at is not None
        return at

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
            return await self._run_in(level, origin, text, work, prepares=prepares)
        await self._take_turn(party, origin)
        try:
            async with self._wire:
                result = await self._send(text, origin, work, guarded=True)
                if not (prepares or is_reading(text)):
                    self._stack.note_write(None)
                return result
        finally:
            self._turns.leave(party)

    async def set_up(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Run what changes the real connection for all, at no one's turn."""
        async with self._wire:
            return await self._send("", "", work, guarded=True)

    async def _run_in(
        self,
        level: Level,
        origin: str,
        text: str,
        work: Callable[[], Awaitable[_T]],
        *,
        prepares: bool,
    ) -> _T:
        verb, name = ("", "") if prepares else savepoint_in(text)
        if verb == "ROLLBACK" and level.guest:
            await self._await_others(level)
        async with self._wire:
            self._refuse_lost(level)
            if level.failed and not is_rollback(text):
                assert self.ground.failure is not None
                raise self.ground.failure()
            at = self._stack.find(level, name)
            if verb == "ROLLBACK" and at is not None:
                return await self._go_back(level, name, at, work)
            if verb in ("RELEASE", "ROLLBACK") and at is None and not self._stack.last(level):
                # The server would take another one's of that name, or fail for all.
                raise SandboxError(f"{origin} has no savepoint {name} that is not undone.")
            if verb == "RELEASE" and at is not None and not self._stack.is_alone(level, at):
                await self.ground.run(f"SAVEPOINT {name}")  # which is released in its place
            result = await self._send_in(level, origin, text, work)
            if verb == "SAVEPOINT":
                self._stack.push(name, level)
            elif at is not None:
                self._stack.merge(level, at)
            elif not (prepares or is_reading(text)):
                self._stack.note_write(level)
            return result

    async def _go_back(
        self, level: Level, name: str, at: int, work: Callable[[], Awaitable[_T]]
    ) -> _T:
        """Have a member go back to a savepoint of its own."""
        if self._stack.others_wrote(level, at):
            if self._stack.wrote(level, at):
                self._refuse_rollback(level)
            # Nothing of its own is to be undone: it goes back to where it is.
            self._stack.merge(level, at)
            await self.ground.run(f"SAVEPOINT {name}")
            self._stack.push(name, level)
            result = await work()
        else:
            if not self._stack.is_alone(level, at):
                for above in self._stack.above(at):  # somebody else's may have the same name
                    await self.ground.run(f"ROLLBACK TO SAVEPOINT {above}")
                    await self.ground.run(f"RELEASE SAVEPOINT {above}")
            result = await work()
            self._stack.undo(at)
        level.failed = False
        return result

    async def _send_in(
        self, level: Level, origin: str, text: str, work: Callable[[], Awaitable[_T]]
    ) -> _T:
        """Send a member's statement; its failure undoes nothing of anybody else's."""
        own = self._stack.last(level)
        guarded = level.guest or own is None
        try:
            return await self._send(text, origin, work, guarded=guarded)
        except SandboxEscapeError:
            raise
        except BaseException:
            if self.ground.failure is not None:
                await self._note_failure(level, own, self.ground.failure)
            raise

    async def _note_failure(
        self, level: Level, own: str | None, failure: Callable[[], Exception]
    ) -> None:
        aborted = await self._is_aborted(failure)
        if aborted and own is not None:
            await self._undo(level, own, ends=False)
        level.failed = not level.guest and (aborted or own is None)

    async def _is_aborted(self, failure: Callable[[], Exception]) -> bool:
        """Ask the server: what the driver itself refused has done no harm there."""
        # Not try: what goes on after a coroutine has thrown is lost on tracers of Python 3.11.
        [answer] = await asyncio.gather(self.ground.run("SELECT 1"), return_exceptions=True)
        return isinstance(answer, type(failure()))

    async def _send(
        self, text: str, origin: str, work: Callable[[], Awaitable[_T]], *, guarded: bool
    ) -> _T:
        """Send a statement; guarded, its failure leaves what is around it as it was."""
        guarded = guarded and self.ground.failure is not None and not is_control(text)
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
        self.escaped = (
            f"{origin} executed {text.strip()!r}, which ended the sandbox's transaction: what the test "
            "did so far was stored, or undone. Use session.commit() and session.rollback(), or "
            "db_clone."
        )
        self._stack.clear()
        # Whatever comes now must not be stored for good.
        await self.ground.begin()
        raise SandboxEscapeError(self.escaped)

    async def _take_turn(self, party: object, origin: str) -> None:
        if self._closed:
            raise SandboxError(f"{origin} uses a connection of a test that is over.")
        if not await self._turns.take(party, origin, self.turn_timeout):
            raise SandboxError(
                f"{origin} waited {self.turn_timeout:g} s for its turn: {self._turns.holder} has a "
                "transaction open, and the sandbox has one connection for all. End that one first "
                "(the fixture db_session takes no turn), or use db_clone for this test."
            )
