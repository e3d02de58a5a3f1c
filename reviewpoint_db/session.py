"""The session classes: ordinary SQLAlchemy sessions that know their database.

They are made for one database by `make_session_class`, on top of whatever AsyncSession class the
application wants (SQLModel's, say), and differ from SQLAlchemy's in that

* they find the engine of the running event loop by themselves,
* a failed COMMIT is followed by a rollback, whoever called it,
* after their end they refuse to work instead of opening a connection that nobody returns.

`read_session.py` has those that only read, `write_tracking.py` those that remember that they wrote.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from sqlalchemy import Connection, Engine, TextClause, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction

from reviewpoint_db.errors import SessionClosedError
from reviewpoint_db.holder import Work
from reviewpoint_db.pooled import holder_of
from reviewpoint_db.redaction import scrub
from reviewpoint_db.session_state import state_of
from reviewpoint_db.statements import operation_of

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "AFTER_COMMIT",
    "SESSION_DEFAULTS",
    "BoundSession",
    "SessionMixin",
    "assemble",
    "awaits_commit",
    "closed_error",
    "make_session_class",
]

_T = TypeVar("_T")
#: What a text begins with that changes rows for certain; a WITH may or may not.
_CHANGES: Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})

#: Where a session's `info` keeps what is to run after its COMMIT, and its class what runs.
AFTER_COMMIT: Final = "reviewpoint_db_after_commit"

#: How our sessions are made: objects stay readable after COMMIT, and a closed session stays closed.
SESSION_DEFAULTS: Final[dict[str, Any]] = {"expire_on_commit": False, "close_resets_only": False}


class BoundSession(SyncSession):
    """The synchronous half of our sessions, which SQLAlchemy's AsyncSession drives in a greenlet."""

    engine_of_this_loop: ClassVar[Callable[[], Engine]]

    def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
        """Return the running loop's engine, unless the caller names another bind.

        A transaction ends where it began: its second half may not be another engine's.
        """
        if state_of(self).ended:
            raise closed_error()
        if kwargs.get("bind") is not None or self.bind is not None:
            return super().get_bind(*args, **kwargs)
        engine, state = type(self).engine_of_this_loop(), state_of(self)
        if state.engine is None or not (engine is state.engine or _uses(self, state.engine)):
            state.engine = engine
        return state.engine

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute, and remember a change that now waits for its COMMIT."""
        return self.noted(statement, super().execute, *args, **kwargs)

    def scalar(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """Like `execute()`, which SQLAlchemy's does not call."""
        return self.noted(statement, super().scalar, *args, **kwargs)

    def scalars(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """Like `execute()`, which SQLAlchemy's does not call."""
        return self.noted(statement, super().scalars, *args, **kwargs)

    def noted(self, statement: Any, run: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Run a statement, and note what it does."""
        try:
            result = run(statement, *args, **kwargs)
        except SQLAlchemyError as error:
            scrub(error)  # rows that do not fit are told by their primary key
            raise
        if getattr(statement, "is_dml", False) or (
            isinstance(statement, TextClause) and operation_of(statement.text) in _CHANGES
        ):
            state_of(self).uncommitted = True
        return result

    def add(self, instance: object, **private: Any) -> None:
        """Add; an error tells the object's class and not its primary key."""
        try:
            super().add(instance, **private)
        except SQLAlchemyError as error:
            scrub(error)
            raise

    def flush(self, objects: Any = None) -> None:
        """Flush; as `add()`."""
        try:
            super().flush(objects)
        except SQLAlchemyError as error:
            scrub(error)
            raise

    def commit(self) -> None:
        """Commit; when that fails, roll back, so that no lock outlives the error."""
        try:
            super().commit()
        except BaseException:
            with contextlib.suppress(SQLAlchemyError, OSError):
                self.rollback()
            raise

    def close(self) -> None:
        """Close; what waited for a COMMIT is forgotten, and changes are remembered as lost."""
        _forget_hooks(self)
        state = state_of(self)
        if not state.ended and (state.uncommitted or self.new or self.dirty or self.deleted):
            state.closed_over_changes = True
        super().close()

    def reset(self) -> None:
        """Reset; what waited for a COMMIT is forgotten."""
        _forget_hooks(self)
        super().reset()


def _uses(session: SyncSession, engine: Engine) -> bool:
    """Whether the session's transaction has a connection of the engine."""
    connections = state_of(session).connections if session.in_transaction() else ()
    return any(held.engine is engine and not held.closed for held in connections)


def awaits_commit(session: SyncSession | AsyncSession) -> bool:
    """Whether there is anything for a COMMIT: a transaction, or functions that run after it."""
    return session.in_transaction() or bool(session.info.get(AFTER_COMMIT))


def _forget_hooks(session: SyncSession) -> None:
    hooks = session.info.get(AFTER_COMMIT)
    if hooks is not None:
        hooks.forget()


class SessionMixin:
    """The asynchronous half of our sessions."""

    async def commit(self) -> None:
        """Commit; a session without a transaction has nothing to commit and costs nothing."""
        session: SyncSession = self.sync_session  # type: ignore[attr-defined]  # of the AsyncSession beside
        if awaits_commit(session):
            await super().commit()  # type: ignore[misc]  # of the AsyncSession beside

    async def rollback(self) -> None:
        """Roll back; a session without a transaction has nothing to roll back and costs nothing."""
        session: SyncSession = self.sync_session  # type: ignore[attr-defined]  # of the AsyncSession beside
        if session.in_transaction():
            await super().rollback()  # type: ignore[misc]  # of the AsyncSession beside
        else:
            _forget_hooks(session)


def make_session_class(
    base: type[AsyncSession],
    engine: Callable[[], AsyncEngine],
    *,
    sync_base: type[BoundSession] = BoundSession,
    after_commits: set[asyncio.Task[None]],
) -> type[AsyncSession]:
    """Make the session class of one database.

    Args:
        base: The application's AsyncSession class.
        engine: Returns the engine of the running event loop.
        sync_base: The class of its synchronous half.
        after_commits: Where `after_commit()` keeps what it runs.
    """
    members = {
        "engine_of_this_loop": staticmethod(lambda: engine().sync_engine),
        AFTER_COMMIT: after_commits,
    }
    return assemble("Session", (SessionMixin, base), (sync_base, base.sync_session_class), members)


def assemble(
    name: str,
    bases: tuple[type, ...],
    sync_bases: tuple[type, ...],
    sync_members: dict[str, Any],
) -> type[AsyncSession]:
    """Make a session class of its two halves.

    Args:
        name: What it is called.
        bases: Of the asynchronous half.
        sync_bases: Of the synchronous half.
        sync_members: What the synchronous half has besides.
    """
    sync_class: Any = type("SyncSession", sync_bases, sync_members)
    event.listen(sync_class, "after_begin", _remember_connection)
    event.listen(sync_class, "after_flush", _remember_flush)
    event.listen(sync_class, "after_commit", _note_commit)
    event.listen(sync_class, "after_rollback", _forget_changes)
    members = {
        "sync_session_class": sync_class,
        # SQLAlchemy 2.0 has it only where there is one, and advanced-alchemy asks for it.
        "bind": None,
        "__doc__": f"{name} of one database.",
    }
    made: type[AsyncSession] = type(name, bases, members)
    return made


def closed_error() -> SessionClosedError:
    """Return the error for the use of a session after its end."""
    return SessionClosedError(
        "This session belongs to a request or block that is over. Use it inside of that, "
        "or open one for the later work: `async with database.session() as session`."
    )


def _remember_connection(
    session: SyncSession, _transaction: SessionTransaction, connection: Connection
) -> None:
    state = state_of(session)
    if state.ended:
        # A task that shares the session waited for this connection when the session was ended.
        connection.close()
        raise closed_error()
    # Only what is still out counts: a long-lived session has any number of transactions.
    state.connections = [held for held in state.connections if not held.closed]
    state.connections.append(connection)
    holder = holder_of(connection)
    if holder is not None:
        if state.work is None:
            state.work = Work()
        state.work.begin(holder)


def _remember_flush(session: SyncSession, _context: object) -> None:
    state_of(session).uncommitted = True


def _note_commit(session: SyncSession) -> None:
    if not session.in_nested_transaction():
        state = state_of(session)
        state.uncommitted = False
        state.committed = True


def _forget_changes(session: SyncSession) -> None:
    if not session.in_nested_transaction():
        state_of(session).uncommitted = False
