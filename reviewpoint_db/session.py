"""The session classes: ordinary SQLAlchemy sessions that know their database.

They are made for one database by `make_session_class`, on top of whatever AsyncSession class the
application wants (SQLModel's, say), and differ from SQLAlchemy's in that

* they find the engine of the running event loop by themselves,
* a failed COMMIT is followed by a rollback, whoever called it,
* after their end they refuse to work instead of opening a connection that nobody returns,
* a read session refuses to write, costs no BEGIN and returns its connection after each statement.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, Protocol, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, MissingGreenlet, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction, SessionTransactionOrigin

from reviewpoint_db.backend import READ_ONLY, WRITE_REFUSED
from reviewpoint_db.errors import (
    CommitOutcomeUnknownError,
    DatabaseUnavailableError,
    ReadOnlySessionError,
    SessionClosedError,
)
from reviewpoint_db.holder import Work
from reviewpoint_db.pooled import holder_of
from reviewpoint_db.redaction import scrub

__all__ = [
    "AFTER_COMMIT",
    "LATER",
    "SESSION_DEFAULTS",
    "ReadSource",
    "ReadSources",
    "SessionState",
    "make_session_class",
    "read_engine_of",
    "state_of",
]

_STATE: Final = "reviewpoint_db"
_T = TypeVar("_T")

#: Where a session's `info` keeps what runs after its COMMIT.
AFTER_COMMIT: Final = "reviewpoint_db_after_commit"

#: The place after all others of the log: what is to be seen is on the primary only, as far as we know.
LATER: Final = (1 << 64) - 1

#: How our sessions are made: objects stay readable after COMMIT, and a closed session stays closed.
SESSION_DEFAULTS: Final[dict[str, Any]] = {"expire_on_commit": False, "close_resets_only": False}


class SessionState:
    """What we keep about a session, in its `info`."""

    __slots__ = (
        "awaited",
        "connections",
        "ended",
        "reading",
        "source",
        "streaming",
        "uncommitted",
        "work",
        "writer",
        "wrote",
    )

    def __init__(self) -> None:
        #: The connections that the session's transactions took and that may still be out.
        self.connections: list[Connection] = []
        self.ended = False
        #: Whether something was flushed or executed that no COMMIT made permanent.
        self.uncommitted = False
        self.reading = 0
        self.streaming = False
        #: What it did so far; None while it has taken no connection.
        self.work: Work | None = None
        #: The host that a read session stays with; None where it has not chosen.
        self.source: ReadSource | None = None
        #: The place of the primary's log that a read session must see.
        self.awaited: int | None = None
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


class ReadSource(Protocol):
    """A host that read sessions use."""

    usable: bool

    def engine(self) -> AsyncEngine:
        """Return its engine of the running loop."""


class ReadSources(Protocol):
    """The hosts that read sessions may use (`Replicas`)."""

    def source(self, awaited: int | None) -> ReadSource:
        """Choose one; called in a greenlet."""

    def lost(self, source: ReadSource) -> bool:
        """Take one out, whose connection was lost; False for the primary."""


class _BoundSession(SyncSession):
    """The synchronous half of our sessions, which SQLAlchemy's AsyncSession drives in a greenlet."""

    engine_of_this_loop: ClassVar[Callable[[], Engine]]

    def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
        """Return the running loop's engine, unless the caller names another bind."""
        if state_of(self).ended:
            raise _over()
        if kwargs.get("bind") is not None or self.bind is not None:
            return super().get_bind(*args, **kwargs)
        return type(self).engine_of_this_loop()

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
        if getattr(statement, "is_dml", False):
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


class _ReadingSession(_BoundSession):
    """The synchronous half of a read session: autocommit, a connection for one statement only."""

    streaming_engine_of_this_loop: ClassVar[Callable[[], Engine]]

    def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
        """Return the stream's engine while there is one, else a second connection were needed."""
        bind = super().get_bind(*args, **kwargs)
        if state_of(self).streaming and bind is type(self).engine_of_this_loop():
            return type(self).streaming_engine_of_this_loop()
        return bind

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute and return the connection; a stream keeps it until the session's end."""
        run = super().execute
        if kwargs.get("execution_options", {}).get("stream_results"):
            # Driver cursors exist in transactions only.
            state_of(self).streaming = True
            binds = {**(kwargs.pop("bind_arguments", None) or {})}
            binds.setdefault("bind", self.streaming_bind())
            return run(statement, *args, bind_arguments=binds, **kwargs)
        return self.read(statement, lambda: run(statement, *args, **kwargs))

    def streaming_bind(self) -> Engine:
        """Return the engine of a stream."""
        return type(self).streaming_engine_of_this_loop()

    def may_run_again(self, error: DBAPIError, statement: Any) -> bool:
        """Whether what failed is worth another attempt: a SELECT whose connection was lost."""
        return bool(error.connection_invalidated) and getattr(statement, "is_select", False)

    def scalar(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """Like `Session.scalar`."""
        run = super().scalar
        return self.read(statement, lambda: run(statement, *args, **kwargs))

    def scalars(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """Like `Session.scalars`."""
        run = super().scalars
        return self.read(statement, lambda: run(statement, *args, **kwargs))

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Like `Session.get`."""
        run = super().get
        return self.read(None, lambda: run(*args, **kwargs))

    def refresh(self, *args: Any, **kwargs: Any) -> None:
        """Like `Session.refresh`."""
        run = super().refresh
        self.read(None, lambda: run(*args, **kwargs))

    def flush(self, *args: Any, **kwargs: Any) -> None:
        """Refuse before anything is sent; what was set to what it already was is no change."""
        if self.new or self.deleted or any(self.is_modified(one) for one in self.dirty):
            raise ReadOnlySessionError(WRITE_REFUSED)
        run = super().flush
        self.read(None, lambda: run(*args, **kwargs))

    def begin_nested(self) -> SessionTransaction:
        """Refuse: there is no transaction in which a savepoint could be."""
        raise ReadOnlySessionError(
            "A read session has no transaction and so no savepoints. Use db_session for them."
        )

    def read(self, statement: Any, run: Callable[[], _T]) -> _T:
        """Run a read and return its connection; a SELECT whose connection was lost runs again."""
        state = state_of(self)
        if state.reading or state.streaming:  # a loader's query inside of a query
            return run()
        begun = self.get_transaction()
        if begun is not None and begun.origin is SessionTransactionOrigin.BEGIN:
            return run()  # `async with session.begin()`: the block's end returns it
        state.reading += 1
        try:
            try:
                result = run()
            except DBAPIError as error:
                self.rollback()
                if not self.may_run_again(error, statement):
                    raise
                result = run()
            self._return_connection()
            return result
        except BaseException:
            self.rollback()
            raise
        finally:
            state.reading -= 1

    def _return_connection(self) -> None:
        """End the session's transaction, of which the database knows nothing; objects stay as they are."""
        transaction = self.get_transaction()
        if transaction is not None:
            transaction.close()


class _ReplicaSession(_ReadingSession):
    """The synchronous half of a read session where there are replicas.

    It stays with the host that it chose first: another one may be further behind, and what was seen
    already would be gone again.
    """

    sources: ClassVar[ReadSources]

    def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
        """Return the engine of this session's host."""
        state = state_of(self)
        if state.ended:
            raise _over()
        if kwargs.get("bind") is not None or self.bind is not None:
            return SyncSession.get_bind(self, *args, **kwargs)
        return self.streaming_bind() if state.streaming else self._face(read_engine_of)

    def streaming_bind(self) -> Engine:
        """Return the engine of a stream from this session's host."""
        return self._face(_streaming_engine_of)

    def _face(self, of: Callable[[AsyncEngine], AsyncEngine]) -> Engine:
        state = state_of(self)
        writer = state.writer
        if writer is not None and writer.stored and state.awaited != LATER:
            state.awaited, state.source = LATER, None
        source = state.source
        # In the middle of a read a second host would mean a second connection.
        if source is None or not (source.usable or self.in_transaction()):
            try:
                source = type(self).sources.source(state.awaited)
            except MissingGreenlet:
                # `get_bind()` outside of a statement, for the dialect: nothing is read by it, and
                # nothing can be awaited there.
                return type(self).engine_of_this_loop()
            state.source = source
        return of(source.engine()).sync_engine

    def may_run_again(self, error: DBAPIError, statement: Any) -> bool:
        """Leave a host whose connection was lost. No statement can have written anything there."""
        lost = bool(error.connection_invalidated) or isinstance(error, DatabaseUnavailableError)
        state = state_of(self)
        if not lost or state.source is None or not type(self).sources.lost(state.source):
            return super().may_run_again(error, statement)
        state.source = None
        return statement is not None


class _RememberingSession(_BoundSession):
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
    """Take for stored what may be: whoever looks whether it is must not ask a replica."""
    state = state_of(session)
    unknown = isinstance(sys.exception(), CommitOutcomeUnknownError)  # why it is rolled back
    if unknown and state.wrote == "perhaps" and not session.in_nested_transaction():
        state.wrote = "unknown"


class _SessionMixin:
    """The asynchronous half of our sessions."""

    async def commit(self) -> None:
        """Commit; a session without a transaction has nothing to commit and costs nothing."""
        session: SyncSession = self.sync_session  # type: ignore[attr-defined]  # of the AsyncSession beside
        if session.in_transaction() or AFTER_COMMIT in session.info:
            await super().commit()  # type: ignore[misc]  # of the AsyncSession beside

    async def rollback(self) -> None:
        """Roll back; a session without a transaction has nothing to roll back and costs nothing."""
        session: SyncSession = self.sync_session  # type: ignore[attr-defined]  # of the AsyncSession beside
        if session.in_transaction():
            await super().rollback()  # type: ignore[misc]  # of the AsyncSession beside


class _ReadSessionMixin(_SessionMixin):
    """The asynchronous half of a read session."""

    async def run_sync(self, fn: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Run `fn(sync_session, ...)` and return the connection afterwards."""

        def read(session: _ReadingSession) -> _T:
            return session.read(None, lambda: fn(session, *args, **kwargs))

        result: _T = await super().run_sync(read)  # type: ignore[misc]  # of the AsyncSession beside
        return result


def make_session_class(
    base: type[AsyncSession],
    engine: Callable[[], AsyncEngine],
    *,
    read_only: bool = False,
    replicas: ReadSources | None = None,
    remember_writes: bool = False,
) -> type[AsyncSession]:
    """Make the session class of one database.

    Args:
        base: The application's AsyncSession class.
        engine: Returns the engine of the running event loop.
        read_only: Make the class of `read_session()`.
        replicas: Where its sessions read; None for the primary.
        remember_writes: Have `SessionState.wrote` say whether something was written.
    """
    own: type[_BoundSession] = _ReadingSession if read_only else _BoundSession
    if read_only and replicas is not None:
        own = _ReplicaSession
    elif remember_writes:
        own = _RememberingSession
    members: dict[str, Any] = {
        "engine_of_this_loop": staticmethod(lambda: engine().sync_engine),
    }
    if read_only:
        members = {
            "engine_of_this_loop": staticmethod(lambda: read_engine_of(engine()).sync_engine),
            "streaming_engine_of_this_loop": staticmethod(
                lambda: _streaming_engine_of(engine()).sync_engine
            ),
        }
    if replicas is not None:
        members["sources"] = replicas
    sync_class: Any = type("SyncSession", (own, base.sync_session_class), members)
    if remember_writes:
        event.listen(sync_class, "after_flush", _remember_write)
        event.listen(sync_class, "after_commit", _remember_stored)
        event.listen(sync_class, "after_soft_rollback", _remember_unknown)
    event.listen(sync_class, "after_begin", _remember_connection)
    event.listen(sync_class, "after_flush", _remember_flush)
    event.listen(sync_class, "after_commit", _forget_changes)
    event.listen(sync_class, "after_rollback", _forget_changes)
    name, mixin = ("ReadSession", _ReadSessionMixin) if read_only else ("Session", _SessionMixin)
    made: type[AsyncSession] = type(
        name,
        (mixin, base),
        {
            "sync_session_class": sync_class,
            # SQLAlchemy 2.0 has it only where there is one, and advanced-alchemy asks for it.
            "bind": None,
            "__doc__": f"{name} of one database.",
        },
    )
    return made


def _over() -> SessionClosedError:
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
        raise _over()
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


def _forget_changes(session: SyncSession) -> None:
    if not session.in_nested_transaction():
        state_of(session).uncommitted = False


def read_engine_of(engine: AsyncEngine) -> AsyncEngine:
    """Return the face of an engine that read sessions use: the same pool, autocommit, no writes."""
    return _derived(engine, "read", _make_read_engine)


def _streaming_engine_of(engine: AsyncEngine) -> AsyncEngine:
    return _derived(engine, "stream", _make_streaming_engine)


def _derived(
    engine: AsyncEngine, name: str, make: Callable[[AsyncEngine], AsyncEngine]
) -> AsyncEngine:
    """Make a face of an engine once, and keep it with the engine."""
    faces: dict[str, AsyncEngine] = engine.sync_engine.__dict__.setdefault("_reviewpoint_db", {})
    face = faces.get(name)
    if face is None:
        face = faces[name] = make(engine)
    return face


def _make_read_engine(engine: AsyncEngine) -> AsyncEngine:
    options: dict[str, Any] = {READ_ONLY: True}
    if engine.dialect.name != "sqlite":
        options["isolation_level"] = "AUTOCOMMIT"
    return engine.execution_options(**options)


def _make_streaming_engine(engine: AsyncEngine) -> AsyncEngine:
    options: dict[str, Any] = {READ_ONLY: True}
    if engine.dialect.name != "sqlite":
        options["postgresql_readonly"] = True
    return engine.execution_options(**options)
