"""Read sessions: they refuse to write, cost no BEGIN and return their connection after each statement.

They use the same pool by an engine that is derived from the usual one (`execution_options`) and is in
autocommit. A stream of rows needs a transaction, and has a second derived engine. Where there are
replicas, a read session chooses its host at its first statement.

Tasks may share a read session, as dependencies do that are resolved at once: they take turns, and
each turn has its connection for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, MissingGreenlet
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction, SessionTransactionOrigin

from reviewpoint_db.backend import READ_ONLY, WRITE_REFUSED
from reviewpoint_db.errors import DatabaseUnavailableError, ReadOnlySessionError
from reviewpoint_db.lsn import MAX_LSN
from reviewpoint_db.session import (
    BoundSession,
    SessionMixin,
    assemble,
    closed_error,
)
from reviewpoint_db.session_state import state_of
from reviewpoint_db.turns import Turns

__all__ = [
    "ReadSource",
    "ReadSources",
    "make_read_session_class",
    "read_engine_of",
]

_T = TypeVar("_T")


class ReadSource(Protocol):
    """A host that read sessions use."""

    usable: bool

    def engine(self) -> AsyncEngine:
        """Return its engine of the running loop."""


class ReadSources(Protocol):
    """The hosts that read sessions may use (`Replicas`)."""

    def source(self, required_lsn: int | None) -> ReadSource:
        """Choose one; called in a greenlet."""

    def lost(self, source: ReadSource) -> bool:
        """Take one out, whose connection was lost; False for the primary."""


class _ReadingSession(BoundSession):
    """The synchronous half of a read session: autocommit, a connection for one statement only."""

    streaming_engine_of_this_loop: ClassVar[Callable[[], Engine]]

    def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
        """Return the engine for reads; while a stream is open, its engine, and so its connection."""
        bind = super().get_bind(*args, **kwargs)
        if state_of(self).streaming and bind is type(self).engine_of_this_loop():
            return type(self).streaming_engine_of_this_loop()
        return bind

    def execute(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """Execute and return the connection; a stream keeps it until the session's end."""
        run = super().execute
        if not kwargs.get("execution_options", {}).get("stream_results"):
            return self.read(statement, lambda: run(statement, *args, **kwargs))

        def stream() -> Any:
            # Driver cursors exist in transactions only.
            state_of(self).streaming = True
            binds = {**(kwargs.pop("bind_arguments", None) or {})}
            binds.setdefault("bind", self.streaming_bind())
            return run(statement, *args, bind_arguments=binds, **kwargs)

        return self._turns().run(stream)

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

    def commit(self) -> None:
        """End what was begun, once nobody else reads."""
        self._turns().run(super().commit)

    def rollback(self) -> None:
        """End what was begun, once nobody else reads."""
        self._turns().run(super().rollback)

    def begin_nested(self) -> SessionTransaction:
        """Refuse: there is no transaction in which a savepoint could be."""
        raise ReadOnlySessionError(
            "A read session has no transaction and so no savepoints. Use db_session for them."
        )

    def read(self, statement: Any, run: Callable[[], _T]) -> _T:
        """Run a read and return its connection; a SELECT whose connection was lost runs again."""
        turns = self._turns()
        if turns.inside:  # a loader's query inside of a query
            return run()
        return turns.run(lambda: self._read(statement, run))

    def _turns(self) -> Turns:
        state = state_of(self)
        if state.turns is None:
            state.turns = Turns()
        return state.turns

    def _read(self, statement: Any, run: Callable[[], _T]) -> _T:
        if state_of(self).streaming:
            return run()
        begun = self.get_transaction()
        if begun is not None and begun.origin is SessionTransactionOrigin.BEGIN:
            return run()  # `async with session.begin()`: the block's end returns it
        try:
            try:
                result = run()
            except DBAPIError as error:
                self.rollback()
                if not self.may_run_again(error, statement):
                    raise
                result = run()
            self._return_connection()
        except BaseException:
            self.rollback()
            raise
        return result

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
            raise closed_error()
        if kwargs.get("bind") is not None or self.bind is not None:
            return SyncSession.get_bind(self, *args, **kwargs)
        return self.streaming_bind() if state.streaming else self._derived_engine(read_engine_of)

    def streaming_bind(self) -> Engine:
        """Return the engine of a stream from this session's host."""
        return self._derived_engine(_streaming_engine_of)

    def _derived_engine(self, of: Callable[[AsyncEngine], AsyncEngine]) -> Engine:
        state = state_of(self)
        writer = state.writer
        if writer is not None and writer.stored and state.required_lsn != MAX_LSN:
            state.required_lsn, state.source = MAX_LSN, None
        source = state.source
        # In the middle of a read a second host would mean a second connection.
        if source is None or not (source.usable or self.in_transaction()):
            try:
                source = type(self).sources.source(state.required_lsn)
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


class _ReadSessionMixin(SessionMixin):
    """The asynchronous half of a read session."""

    async def run_sync(self, fn: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Run `fn(sync_session, ...)` and return the connection afterwards."""

        def read(session: _ReadingSession) -> _T:
            return session.read(None, lambda: fn(session, *args, **kwargs))

        result: _T = await super().run_sync(read)  # type: ignore[misc]  # of the AsyncSession beside
        return result


def make_read_session_class(
    base: type[AsyncSession],
    engine: Callable[[], AsyncEngine],
    *,
    replicas: ReadSources | None = None,
) -> type[AsyncSession]:
    """Make the class of one database's read sessions.

    Args:
        base: The application's AsyncSession class.
        engine: Returns the primary's engine of the running event loop.
        replicas: Where they read; None for the primary.
    """
    own = _ReadingSession if replicas is None else _ReplicaSession
    members: dict[str, Any] = {
        "engine_of_this_loop": staticmethod(lambda: read_engine_of(engine()).sync_engine),
        "streaming_engine_of_this_loop": staticmethod(
            lambda: _streaming_engine_of(engine()).sync_engine
        ),
    }
    if replicas is not None:
        members["sources"] = replicas
    bases = (_ReadSessionMixin, base)
    return assemble("ReadSession", bases, (own, base.sync_session_class), members)


def read_engine_of(engine: AsyncEngine) -> AsyncEngine:
    """Return an engine's derived engine for reads: the same pool, autocommit, no writes."""
    return _derived(engine, "read", _make_read_engine)


def _streaming_engine_of(engine: AsyncEngine) -> AsyncEngine:
    return _derived(engine, "stream", _make_streaming_engine)


def _derived(
    engine: AsyncEngine, name: str, make: Callable[[AsyncEngine], AsyncEngine]
) -> AsyncEngine:
    """Derive an engine once, and keep it with the one that it is derived from."""
    derived: dict[str, AsyncEngine] = engine.sync_engine.__dict__.setdefault("_reviewpoint_db", {})
    found = derived.get(name)
    if found is None:
        found = derived[name] = make(engine)
    return found


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
