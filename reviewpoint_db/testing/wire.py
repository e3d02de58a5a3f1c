"""Wire: how the statements of all members go over the sandbox's one connection.

A COMMIT, a rollback and a failure concern the transaction that they belong to, and undo nothing of another's: this
keeps the server's savepoints and the stack that says whose they are in step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from reviewpoint_db.testing.commands import is_control, is_reading, is_rollback, savepoint_in
from reviewpoint_db.testing.errors import SandboxError, SandboxEscapeError
from reviewpoint_db.testing.ground import Ground
from reviewpoint_db.testing.levels import Level, Stack

__all__ = ["Wire"]

_T = TypeVar("_T")


class Wire:
    """The one real connection; whoever uses it has its lock.

    Args:
        ground: The real connection.
        test: Names the test.
    """

    def __init__(self, ground: Ground, test: str) -> None:
        self.ground = ground
        self._test = test
        self.lock = asyncio.Lock()
        self.stack = Stack()
        #: Whether the test is at its end, so that nobody minds what is lost.
        self.ending = False
        self.over = False
        #: Says what ended the outer transaction, if anything did.
        self.escaped: str | None = None
        #: Says what an application was refused, which it may have caught.
        self.refused: str | None = None

    # -- transactions -----------------------------------------------------------------------

    async def begin(self, level: Level, *, read_only: bool) -> None:
        """Set a level's savepoint."""
        await self.ground.run(f"SAVEPOINT {level.name}")
        if read_only:
            await self.ground.run("SET TRANSACTION READ ONLY")
        self.stack.push(level.name, level)

    async def commit(self, level: Level) -> None:
        """End a level and keep its changes, unless a deferred constraint says no."""
        self._refuse_lost(level)
        if level.failed:  # as PostgreSQL answers it
            await self.undo(level, level.name, ends=True)
            return
        if self.stack.is_alone(level, self._at(level)):
            await self._release(level)
        # Else something of its own is still open on top: its savepoint ends with the test.
        self.stack.merge(level, self._at(level))
        self.stack.note_commit(level)

    async def _release(self, level: Level) -> None:
        try:
            await self.ground.check_deferred()
        except BaseException:
            await self.undo(level, level.name, ends=True)
            raise
        await self.ground.run(f"RELEASE SAVEPOINT {level.name}")

    async def undo(self, level: Level, name: str, *, ends: bool) -> None:
        """Go back to a savepoint of a level, which ends with it or goes on from there."""
        at = self.stack.find(level, name)
        assert at is not None
        if self.stack.others_wrote(level, at):
            wrote = self.stack.wrote(level, at)
            self.stack.merge(level, at)
            if wrote:
                self._refuse_rollback(level)
            return
        await self.ground.run(f"ROLLBACK TO SAVEPOINT {name}")
        self.stack.undo(at)
        if ends:
            await self.ground.run(f"RELEASE SAVEPOINT {name}")
            self.stack.merge(level, at)

    def _refuse_rollback(self, level: Level) -> None:
        if self.ending:
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
        at = self.stack.find(level, level.name)
        assert at is not None
        return at

    def refuse_late(self, origin: str) -> None:
        """Refuse what outlived its test.

        Raises:
            SandboxError: The test is over.
        """
        if self.over:
            raise SandboxError(f"{origin} uses a connection of {self._test}, which is over.")

    def _refuse_lost(self, level: Level) -> None:
        self.refuse_late(level.origin)
        if level.lost:
            raise SandboxError(
                f"The transaction of {level.origin} was undone, because another one of the same "
                "request, which began before it, was rolled back first. The sandbox has one "
                "connection, where transactions nest; use db_clone for this test."
            )

    # -- statements -------------------------------------------------------------------------

    async def run_alone(
        self, origin: str, text: str, work: Callable[[], Awaitable[_T]], *, prepares: bool
    ) -> _T:
        """Run a statement that belongs to no transaction, and commits by itself."""
        result = await self.send(text, origin, work, guarded=True)
        if not (prepares or is_reading(text)):
            self.stack.note_write(None)
        return result

    async def run_in(
        self,
        level: Level,
        origin: str,
        text: str,
        work: Callable[[], Awaitable[_T]],
        *,
        prepares: bool,
    ) -> _T:
        """Run a statement in a level's transaction."""
        verb, name = ("", "") if prepares else savepoint_in(text)
        self._refuse_lost(level)
        if level.failed and not is_rollback(text):
            assert self.ground.failure is not None
            raise self.ground.failure()
        at = self.stack.find(level, name)
        if verb == "ROLLBACK" and at is not None:
            return await self._go_back(level, name, at, work)
        if verb in ("RELEASE", "ROLLBACK") and at is None and not self.stack.last(level):
            # The server would take another one's of that name, or fail for all.
            raise SandboxError(f"{origin} has no savepoint {name} that is not undone.")
        if verb == "RELEASE" and at is not None and not self.stack.is_alone(level, at):
            await self.ground.run(f"SAVEPOINT {name}")  # which is released in its place
        result = await self._send_in(level, origin, text, work)
        if verb == "SAVEPOINT":
            self.stack.push(name, level)
        elif at is not None:
            self.stack.merge(level, at)
        elif not (prepares or is_reading(text)):
            self.stack.note_write(level)
        return result

    async def _go_back(
        self, level: Level, name: str, at: int, work: Callable[[], Awaitable[_T]]
    ) -> _T:
        """Have a member go back to a savepoint of its own."""
        if self.stack.others_wrote(level, at):
            if self.stack.wrote(level, at):
                self._refuse_rollback(level)
            # Nothing of its own is to be undone: it goes back to where it is.
            self.stack.merge(level, at)
            await self.ground.run(f"SAVEPOINT {name}")
            self.stack.push(name, level)
            result = await work()
        else:
            if not self.stack.is_alone(level, at):
                for above in self.stack.above(at):  # somebody else's may have the same name
                    await self.ground.run(f"ROLLBACK TO SAVEPOINT {above}")
                    await self.ground.run(f"RELEASE SAVEPOINT {above}")
            result = await work()
            self.stack.undo(at)
        level.failed = False
        return result

    async def _send_in(
        self, level: Level, origin: str, text: str, work: Callable[[], Awaitable[_T]]
    ) -> _T:
        """Send a member's statement; its failure undoes nothing of anybody else's."""
        own = self.stack.last(level)
        guarded = level.guest or own is None
        try:
            return await self.send(text, origin, work, guarded=guarded)
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
            await self.undo(level, own, ends=False)
        level.failed = not level.guest and (aborted or own is None)

    async def _is_aborted(self, failure: Callable[[], Exception]) -> bool:
        """Ask the server: what the driver itself refused has done no harm there."""
        # Not try: what goes on after a coroutine has thrown is lost on tracers of Python 3.11.
        [answer] = await asyncio.gather(self.ground.run("SELECT 1"), return_exceptions=True)
        return isinstance(answer, type(failure()))

    async def send(
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
        self.stack.clear()
        # Whatever comes now must not be stored for good.
        await self.ground.begin()
        raise SandboxEscapeError(self.escaped)
