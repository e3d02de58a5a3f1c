"""create_engine: an AsyncEngine with our pool, safe exceptions and a known COMMIT outcome."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from loguru import logger
from sqlalchemy import URL, Connection, Dialect, Engine, ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from reviewpoint_db.activity import Activity
from reviewpoint_db.backend import READ_ONLY, REPLICA, WRITE_REFUSED, Backend
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.driver_errors import code_of
from reviewpoint_db.errors import (
    CommitOutcomeUnknownError,
    DatabaseUnavailableError,
    QueryTimeoutError,
    ReadOnlySessionError,
)
from reviewpoint_db.hosts import HostNotes, connect_first
from reviewpoint_db.observe import observe
from reviewpoint_db.pool import ElasticPool
from reviewpoint_db.postgresql import CockroachDB, PostgreSQL
from reviewpoint_db.redaction import safe_error, scrub
from reviewpoint_db.sqlite import SQLite
from reviewpoint_db.sqlstate import (
    READ_ONLY_TRANSACTION,
    SERVER_ENDED,
    is_disconnect,
)

__all__ = [
    "adopt_engine",
    "backend_of",
    "connect_args_of",
    "create_engine",
    "elastic_pool",
    "host_notes",
]

#: The mark of an error that COMMIT raised.
_IN_COMMIT: Final = "reviewpoint_db_in_commit"
#: Marks an engine whose errors are ours already.
_ADOPTED: Final = "_reviewpoint_db_adopted"
#: Where an engine has its `HostNotes`.
_NOTES: Final = "_reviewpoint_db_host_notes"


def backend_of(config: DatabaseConfig) -> Backend:
    """Return the driver's answers for the configured database."""
    if config.backend == "sqlite":
        return SQLite()
    if config.is_cockroachdb:
        return CockroachDB(password_rotates=config.password_rotates, pgbouncer=config.pgbouncer)
    return PostgreSQL(password_rotates=config.password_rotates, pgbouncer=config.pgbouncer)


def connect_args_of(config: DatabaseConfig, *, read: bool = False) -> dict[str, Any]:
    """Return all of the driver's arguments; those of the application's `engine_options` win.

    So does each of its `server_settings` by itself: who names one keeps the others of ours.

    Args:
        config: The settings.
        read: For the replica.
    """
    own = config.connect_args(read=read)
    given = config.engine_options.get("connect_args", {})
    arguments = {**own, **given}
    if "server_settings" in own:
        arguments["server_settings"] = {
            **own["server_settings"],
            **(given.get("server_settings") or {}),
        }
    hosts = arguments.get("host", ())
    if not read and len(hosts) > 1 and not isinstance(hosts, str):
        arguments.setdefault("async_creator_fn", connect_first)
    return arguments


def elastic_pool(engine: AsyncEngine) -> ElasticPool | None:
    """Return the engine's present pool, or None when `engine_options` brought another class.

    Ask each time: `dispose()` replaces the pool.
    """
    pool = engine.sync_engine.pool
    return pool if isinstance(pool, ElasticPool) else None


def host_notes(engine: AsyncEngine) -> HostNotes | None:
    """Return what the engine's connects have met at the hosts of its URL; None for a foreign one."""
    notes: HostNotes | None = vars(engine.sync_engine).get(_NOTES)
    return notes


def create_engine(
    config: DatabaseConfig,
    activity: Activity,
    *,
    url: URL | None = None,
    connect_args: dict[str, Any] | None = None,
) -> AsyncEngine:
    """Create an engine for one event loop. Nothing connects before it is used.

    Args:
        config: The settings.
        activity: Where the pool records what it does.
        url: Another address than the configured one: the file behind `:memory:`, a replica.
        connect_args: All of the driver's arguments, in place of those that are configured.
    """
    started = time.perf_counter()
    backend = backend_of(config)
    options: dict[str, Any] = dict(config.engine_options)
    options["connect_args"] = connect_args or connect_args_of(config)
    notes = HostNotes()
    if options["connect_args"].get("async_creator_fn") is connect_first:
        options["connect_args"]["async_creator_fn"] = partial(connect_first, host_notes=notes)
    options.setdefault("hide_parameters", True)
    if "poolclass" not in options and "pool" not in options:
        options = {**_pool_options(config, backend, activity), **options}
    engine = create_async_engine(url or config.sqlalchemy_url, **options)
    setattr(engine.sync_engine, _NOTES, notes)
    if connect_args is not None:
        setattr(engine.dialect, REPLICA, True)
    _attach(engine.sync_engine, backend, config)
    if config.observe:
        observe(engine.sync_engine, activity, config)
    backend.prepare_engine(engine)
    activity.engine_created()
    logger.info("Engine created successfully in {:.3f}s", time.perf_counter() - started)
    return engine


def adopt_engine(engine: AsyncEngine, config: DatabaseConfig) -> AsyncEngine:
    """Have the errors of an engine that somebody else made told like ours; all else stays its own.

    Args:
        engine: Any engine; doing it again changes nothing.
        config: The settings of the database that it belongs to.
    """
    made = engine.sync_engine
    if not vars(made).get(_ADOPTED):
        made.hide_parameters = True
        _attach(made, backend_of(config), config)
        setattr(made, _ADOPTED, True)
    return engine


def _pool_options(config: DatabaseConfig, backend: Backend, activity: Activity) -> dict[str, Any]:
    pool = config.effective_pool
    return {
        "poolclass": ElasticPool,
        "pool_size": pool.size,
        "max_overflow": pool.max_overflow,
        "pool_timeout": pool.timeout,
        "pool_recycle": pool.max_lifetime,
        "pool_reset_on_return": pool.reset_on_return,
        "idle_timeout": pool.idle_timeout,
        "ping_after_idle": pool.ping_after_idle,
        "connect_timeout": config.connect_timeout,
        "queue_target": pool.queue_target,
        "backend": backend,
        "activity": activity,
    }


def _attach(engine: Engine, backend: Backend, config: DatabaseConfig) -> None:
    """Listen for errors, and remember for them what the connection was doing."""
    #: Drivers' connections that met an error, since which nobody asked about their transaction.
    doubtful: WeakSet[Any] = WeakSet()
    _watch_commits(engine.dialect, backend, doubtful)
    for verb in ("do_execute", "do_executemany"):
        event.listen(engine, verb, _refuse_writes)

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
        scrub(error)
        if context.sqlalchemy_exception is not None:
            scrub(context.sqlalchemy_exception)
    if driver is not None and lost:
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
        in_commit = _commits_itself(connection, context)
    return _named(error, config, in_commit=in_commit and lost)


def _commits_itself(connection: Connection, context: ExceptionContext) -> bool:
    """Whether the statement that failed is its own transaction, and may have stored something."""
    options = connection.get_execution_options()
    if options.get(READ_ONLY) or str(options.get("isolation_level")).upper() != "AUTOCOMMIT":
        return False
    compiled = getattr(context.execution_context, "compiled", None)
    return not getattr(getattr(compiled, "statement", None), "is_select", False)


def _refuse_writes(_cursor: object, _statement: str, _parameters: object, context: Any) -> None:
    """Refuse what changes something on the connection of a read session."""
    if not context.execution_options.get(READ_ONLY):
        return
    parts = getattr(context.compiled, "ctes", None) or ()
    if (
        context.isinsert
        or context.isupdate
        or context.isdelete
        or context.isddl
        or any(part.element.is_dml for part in parts)
    ):
        raise ReadOnlySessionError(WRITE_REFUSED)


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
    if isinstance(error, TimeoutError):
        return QueryTimeoutError(
            f"A statement did not end within query_timeout ({config.query_timeout:g} s) and its "
            "connection was cut. Make the statement faster, or raise query_timeout.",
            orig=error,
        )
    if isinstance(error, OSError):
        return DatabaseUnavailableError(
            f"The connection to the database was lost ({safe_error(error)}).", orig=error
        )
    return None
