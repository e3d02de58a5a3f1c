"""What an engine's errors become: safe to show, ours where SQLAlchemy has no name for them.

Each error of a statement and of COMMIT passes `_translate`, which

* removes bound values and the driver's details (`redaction.scrub`),
* cuts a connection that is lost or does not answer, and tells the pool about it,
* replaces it where the outcome of a COMMIT is unknown, a time limit has passed, or the connection
  was lost.

COMMIT is watched at the dialect (`_watch_commits`), which also refuses one that would store nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final
from weakref import WeakSet

from sqlalchemy import Connection, Dialect, Engine, ExceptionContext, event
from sqlalchemy.exc import DBAPIError

from reviewpoint_db.backend import READ_ONLY, REPLICA, Backend
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.driver_errors import code_of, is_of_asyncpg, is_of_busy_connection
from reviewpoint_db.errors import (
    CommitOutcomeUnknownError,
    DatabaseUnavailableError,
    QueryTimeoutError,
)
from reviewpoint_db.pool import ElasticPool
from reviewpoint_db.redaction import safe_error, scrub
from reviewpoint_db.sqlite_connection import StatementExpired
from reviewpoint_db.sqlstate import READ_ONLY_TRANSACTION, SERVER_ENDED, is_disconnect

__all__ = ["translate_errors"]

#: The mark of an error that COMMIT raised.
_IN_COMMIT: Final = "reviewpoint_db_in_commit"


def translate_errors(engine: Engine, backend: Backend, config: DatabaseConfig) -> None:
    """Have the errors of an engine translated.

    Args:
        engine: The engine; its dialect must be its own.
        backend: The driver's `Backend`.
        config: The settings that the errors name.
    """
    #: Drivers' connections that met an error, since which nobody asked about their transaction.
    doubtful: WeakSet[Any] = WeakSet()
    _watch_commits(engine.dialect, backend, doubtful)

    @event.listens_for(engine, "handle_error")
    def on_error(context: ExceptionContext) -> BaseException | None:
        _doubt(context, backend, doubtful)
        return _translate(context, backend, config)


def _doubt(context: ExceptionContext, backend: Backend, doubtful: WeakSet[Any]) -> None:
    """Note that the transaction in which an error happened may be lost already."""
    connection = context.connection
    if connection is None or connection.invalidated or not connection.in_transaction():
        return
    driver = connection.connection.driver_connection
    doubtful.add(driver)
    reading = connection.get_execution_options().get(READ_ONLY)
    if not reading and backend.is_rolled_back(driver):
        # What follows would run outside of any transaction, and be stored statement by statement:
        # a transaction without its connection refuses it.
        context.is_disconnect = True


def _translate(
    context: ExceptionContext, backend: Backend, config: DatabaseConfig
) -> BaseException | None:
    """Make an error safe to show, cut what hangs, and name what SQLAlchemy does not."""
    error = context.original_exception
    connection = context.connection
    driver = None
    in_commit = False
    if connection is not None and not connection.invalidated and not connection.closed:
        in_commit = getattr(error, _IN_COMMIT, False)
        driver = connection.connection.driver_connection
    lost = _lost(error) or (driver is not None and backend.is_closed(driver))
    if isinstance(error, Exception):
        # First the one that knows the statement, whose own names may be shown.
        if context.sqlalchemy_exception is not None:
            scrub(context.sqlalchemy_exception)
        scrub(error)
    # Not at COMMIT: what is under way may be the COMMIT of whoever shares the connection.
    busy = not in_commit and is_of_busy_connection(error)
    if driver is not None and (lost or busy):
        context.is_disconnect = True
        if isinstance(error, asyncio.CancelledError):
            backend.interrupt(driver)
        else:
            # A silent server would hold the close back for two seconds.
            backend.terminate(driver)
    # The other connections are verified one by one: dropping them all would empty the pool
    # whenever a single backend is killed.
    context.invalidate_pool_on_disconnect = False
    pool = context.engine.pool if context.engine is not None else None
    if isinstance(error, Exception) and isinstance(pool, ElasticPool):
        if not _of_replica(context.engine) and _is_failover(error, driver, backend):
            pool.retire(safe_error(error))
        elif context.is_disconnect:
            pool.suspect()
    if connection is not None and driver is not None and lost and not in_commit:
        in_commit = _commits_itself(connection, context, config)
    named = _named(error, config, in_commit=in_commit and lost)
    if named is None and context.sqlalchemy_exception is None and is_of_asyncpg(error):
        return _of_stream(error, lost=lost)
    return named


def _of_stream(error: BaseException, *, lost: bool) -> BaseException:
    """Wrap an error that a stream of rows met: SQLAlchemy leaves asyncpg's as they are there."""
    if lost:
        return _connection_lost(error)
    return DBAPIError(None, None, error, hide_parameters=True)


def _connection_lost(error: BaseException) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"The connection to the database was lost ({safe_error(error)}).", orig=error
    )


def _commits_itself(
    connection: Connection, context: ExceptionContext, config: DatabaseConfig
) -> bool:
    """Whether the statement that failed is its own transaction, and may have stored something."""
    options = connection.get_execution_options()
    level = options.get("isolation_level", config.engine_options.get("isolation_level"))
    if options.get(READ_ONLY) or str(level).upper() != "AUTOCOMMIT":
        return False
    compiled = getattr(context.execution_context, "compiled", None)
    return not getattr(getattr(compiled, "statement", None), "is_select", False)


def _watch_commits(dialect: Dialect, backend: Backend, doubtful: WeakSet[Any]) -> None:
    """Refuse a COMMIT that would store nothing, and have the errors of the others carry a mark.

    There is none on those of a connection that was known to be lost before.

    The engine's "commit" event would tell too, but a single listener on connections makes each of
    them, and each statement, a tenth more expensive.
    """
    commit, terminate = dialect.do_commit, dialect.do_terminate
    #: Drivers' connections whose COMMIT was not answered.
    unanswered: WeakSet[Any] = WeakSet()

    def do_commit(connection: Any) -> None:
        driver = connection.driver_connection
        sent = not backend.is_closed(driver)
        if doubtful and driver in doubtful:
            doubtful.discard(driver)
            if sent:
                backend.check_commit(connection)
        try:
            commit(connection)
        except BaseException as error:
            setattr(error, _IN_COMMIT, sent)
            if sent and _lost(error):
                unanswered.add(driver)
            raise

    def do_terminate(connection: Any) -> None:
        try:
            terminate(connection)
        except asyncio.CancelledError:
            # A second cancellation, as anyio's scopes send them; the connection is cut by now. It
            # would take the place of the error that says what is unknown.
            if connection.driver_connection not in unanswered:
                raise

    dialect.do_commit = do_commit  # type: ignore[method-assign, assignment]  # of this engine alone
    dialect.do_terminate = do_terminate  # type: ignore[method-assign, assignment]


def _lost(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError) or is_disconnect(error)


def _of_replica(engine: Engine | None) -> bool:
    return engine is not None and bool(engine.dialect.__dict__.get(REPLICA))


def _is_failover(error: Exception, driver: Any, backend: Backend) -> bool:
    """Whether an error tells that another server, or this one anew, is to be asked from now on."""
    code = code_of(error)
    if code == READ_ONLY_TRANSACTION:
        # A transaction that the application made read-only is its own affair, and a replica (with
        # read sessions alone) is meant to refuse.
        return driver is not None and backend.refuses_writes(driver)
    return code in SERVER_ENDED


def _named(
    error: BaseException, config: DatabaseConfig, *, in_commit: bool
) -> BaseException | None:
    """Return the error of ours that replaces SQLAlchemy's, or None to keep that one."""
    if in_commit:
        # A cancelled COMMIT ends in this error too: whoever cancelled must learn that the data
        # may be stored, and CancelledError would say that nothing happened.
        return CommitOutcomeUnknownError(
            f"The connection was lost during COMMIT ({safe_error(error)}): the data may have been "
            "stored. Look before you repeat it.",
            orig=error,
        )
    if isinstance(error, (TimeoutError, StatementExpired)):
        cut = " and its connection was cut" if isinstance(error, TimeoutError) else ""
        return QueryTimeoutError(
            f"A statement did not end within query_timeout ({config.query_timeout:g} s){cut}. "
            "Make the statement faster, or raise query_timeout.",
            orig=error,
        )
    if isinstance(error, OSError):
        return _connection_lost(error)
    return None
