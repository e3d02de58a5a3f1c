"""The session classes: ordinary SQLAlchemy sessions that know their database.

They are made for one database by `make_session_class`, on top of whatever AsyncSession class the
application wants (SQLModel's, say), and differ from SQLAlchemy's in that

* they find the engine of the running event loop by themselves,
* a failed COMMIT is followed by a rollback, whoever called it,
* after their end they refuse to work instead of opening a connection that nobody returns.

`read_session.py` has those that only read.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeVar

from sqlalchemy import Connection, Engine, TextClause, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction

from reviewpoint_db.errors import CommitOutcomeUnknownError, SessionClosedError
from reviewpoint_db.holder import Work
from reviewpoint_db.pooled import holder_of
from reviewpoint_db.redaction import scrub
from reviewpoint_db.statements import operation_of

if TYPE_CHECKING:
    import asyncio

    from reviewpoint_db.read_session import ReadSource
    from reviewpoint_db.turns import Turns

__all__ = [
    "AFTER_COMMIT",
    "SESSION_DEFAULTS",
    "BoundSession",
    "SessionMixin",
    "SessionState",
    "assemble",
    "awaits_commit",
    "closed_error",
    "make_session_class",
    "state_of",
]

_STATE: Final = "reviewpoint_db"
_T = TypeVar("_T")
#: What a text begins with that changes rows for certain; a WITH may or may not.
_CHANGES: Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE"})

#: Where a session's `info` keeps what is to run after its COMMIT, and its class what runs.
AFTER_COMMIT: Final = "reviewpoint_db_after_commit"

#: How our sessions are made: objects stay readable after COMMIT, and a closed session stays closed.
SESSION_DEFAULTS: Final[dict[str, Any]] = {"expire_on_commit": False, "close_resets_only": False}


class SessionState:
    """What we keep about a session, in its `info`."""

    __slots__ = (
        "closed_over_changes",
        "committed",
        "connections",
        "ended",
        "engine",
        "required_lsn",
        "source",
        "streaming",
        "turns",
        "uncommitted",
        "work",
        "writer",
        "wrote",
    )

    def __init__(self) -> None:
        #: The connections that the session's transactions took and that may still be out.
        self.connections: list[Connection] = []
        self.ended = False
        #: Of this loop, or where the transaction began.
        self.engine: Engine | None = None
        #: Whether something was flushed or executed that no COMMIT made permanent.
        self.uncommitted = False
        #: Whether the application closed it, and so lost changes.
        self.closed_over_changes = False
        #: Whether a transaction of it was committed.
        self.committed = False
        self.streaming = False
        #: Of the tasks that share a read session; None before its first use.
        self.turns: Turns | None = None
        #: What it did so far; None while it has taken no connection.
        self.work: Work | None = None
        #: The host that a read session stays with; None where it has not chosen.
        self.source: ReadSource | None = None
        #: The WAL position of the primary that a read session must see.
        self.required_lsn: int | None = None
        #: What is kept about the session whose COMMITs a read session must see: the same request's.
        self.writer: SessionState | None = None
        #: Whether it may have written, where that is asked for: not yet stored, then for good stored,
        #: or perhaps so, since its COMMIT was not answered.
        self.wrote: Literal["no", "perhaps", "stored", "unknown"] = "no"

    @property
    def stored(self) -> bool:
        """Whether what it wrote is, or may be, stored."""
        return self.wrote in ("stored", "unknown")


def state_of(session: SyncSession | AsyncSession) -> SessionState:
    """Return what we keep about a session."""
    state: SessionState | None = session.info.get(_STATE)
    if state is None:
        state = session.info[_STATE] = SessionState()
    return state


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


class _RememberingSession(BoundSession):
    """The synchronous half of a session whose client is to see what it wrote."""

    def noted(self, statement: Any, run: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Run a statement, and remember what may have written: all but a SELECT."""
        result = super().noted(statement, run, *args, **kwargs)
        if not getattr(statement, "is_select", False):
            _remember_write(self)
        return result

    def connection(self, *args: Any, **kwargs: Any) -> Connection:
        """Return the transaction's connection; what is done by it is not seen here."""
        _remember_write(self)
        return super().connection(*args, **kwargs)

    # These flush without the events of a flush.

    def bulk_save_objects(self, *args: Any, **kwargs: Any) -> None:
        """Like `Session.bulk_save_objects`."""
        _remember_write(self)
        super().bulk_save_objects(*args, **kwargs)

    def bulk_insert_mappings(self, *args: Any, **kwargs: Any) -> None:
        """Like `Session.bulk_insert_mappings`."""
        _remember_write(self)
        super().bulk_insert_mappings(*args, **kwargs)

    def bulk_update_mappings(self, *args: Any, **kwargs: Any) -> None:
        """Like `Session.bulk_update_mappings`."""
        _remember_write(self)
        super().bulk_update_mappings(*args, **kwargs)


def _remember_write(session: SyncSession, *_: object) -> None:
    state = state_of(session)
    if state.wrote == "no":  # what is stored stays so, whatever becomes of the rest
        state.wrote = "perhaps"


def _remember_stored(session: SyncSession) -> None:
    state = state_of(session)
    if state.wrote == "perhaps" and not session.in_nested_transaction():
        state.wrote = "stored"


def _remember_unknown(session: SyncSession, _previous: object) -> None:
    """Count what may be stored as stored: a client that looks for it must not ask a replica."""
    state = state_of(session)
    unknown = isinstance(sys.exception(), CommitOutcomeUnknownError)  # why it is rolled back
    if unknown and state.wrote == "perhaps" and not session.in_nested_transaction():
        state.wrote = "unknown"


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
    remember_writes: bool = False,
    after_commits: set[asyncio.Task[None]],
) -> type[AsyncSession]:
    """Make the session class of one database.

    Args:
        base: The application's AsyncSession class.
        engine: Returns the engine of the running event loop.
        remember_writes: Have `SessionState.wrote` say whether something was written.
        after_commits: Where `after_commit()` keeps what it runs.
    """
    own = _RememberingSession if remember_writes else BoundSession
    members = {
        "engine_of_this_loop": staticmethod(lambda: engine().sync_engine),
        AFTER_COMMIT: after_commits,
    }
    made = assemble("Session", (SessionMixin, base), (own, base.sync_session_class), members)
    if remember_writes:
        event.listen(made.sync_session_class, "after_flush", _remember_write)
        event.listen(made.sync_session_class, "after_commit", _remember_stored)
        event.listen(made.sync_session_class, "after_soft_rollback", _remember_unknown)
    return made


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
