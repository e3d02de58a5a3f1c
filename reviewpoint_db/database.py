"""Database: the one owner of engines, sessions and their end.

Who closes a connection: `Database.end` (a session's), `Database.stop` (all that are left).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from loguru import logger
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from reviewpoint_db.activity import Activity
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.context import current_origin
from reviewpoint_db.debug_info import ConnectionDebugInfo, connection_debug_info
from reviewpoint_db.engine import backend_of, create_engine, elastic_pool
from reviewpoint_db.errors import ConfigurationError, UnavailableError
from reviewpoint_db.health import Check, HealthProbe, HealthReport
from reviewpoint_db.loops import EnginesByLoop, StartedLoops
from reviewpoint_db.pool import CLOSE_TIMEOUT
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.retries import run_with_retries
from reviewpoint_db.session import SESSION_DEFAULTS, make_session_class, state_of
from reviewpoint_db.sqlite import MemoryDatabase
from reviewpoint_db.transaction import CommitMode, UnitOfWork, end_session

if TYPE_CHECKING:
    from types import TracebackType

    from reviewpoint_db.checks import SystemCheck

__all__ = ["Database"]

_T = TypeVar("_T")
#: Seconds between two attempts to create the missing tables while the database is away.
_SCHEMA_RETRY: Final = 1.0
#: Seconds that `drain()` and `stop()` wait for sessions in use.
_DRAIN_TIMEOUT: Final = 10.0
#: Seconds between two looks at what is still in use.
_DRAIN_STEP: Final = 0.02


class Database:
    """A database of an application: its engines (one an event loop), its sessions, its health.

    Nothing connects before it is needed. `async with` starts and stops it, and again afterwards.

    Args:
        config: The settings; None reads them from the environment.
        metadata: Whose tables `create_all` creates.
        create_all: Create missing tables at start; refused in prod.

    Raises:
        ConfigurationError: `create_all` in prod, or without metadata.

    Example:
        >>> async with Database(DatabaseConfig(url="sqlite:///:memory:")) as database:
        ...     async with database.session() as session:
        ...         await session.execute(text("select 42"))
    """

    def __init__(
        self,
        config: DatabaseConfig | None = None,
        *,
        metadata: MetaData | None = None,
        create_all: bool = False,
    ) -> None:
        self.config = config if config is not None else DatabaseConfig.from_env()
        #: The application's tables, for migrations too.
        self.metadata = metadata
        self._metadata = _checked_metadata(self.config, metadata, create_all=create_all)
        self.activity = Activity(self.config.name)
        self.started = False
        self.draining = False
        self._backend = backend_of(self.config)
        self._memory: MemoryDatabase | None = None
        self._engines = EnginesByLoop(self._create_engine)
        self._started_loops = StartedLoops()
        self._checks: dict[str, Check] = {}
        self._system_checks: list[SystemCheck] = []
        self._probe = HealthProbe(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closings: set[asyncio.Task[None]] = set()
        base = self.config.session_class or AsyncSession
        self.sessionmaker: async_sessionmaker[AsyncSession] = async_sessionmaker(
            class_=make_session_class(base, self._engines.current), **SESSION_DEFAULTS
        )
        self.read_sessionmaker: async_sessionmaker[AsyncSession] = async_sessionmaker(
            class_=make_session_class(base, self._engines.current, read_only=True),
            autoflush=False,
            **SESSION_DEFAULTS,
        )

    def __repr__(self) -> str:
        """Show name and address, without credentials."""
        return f"<Database {self.name!r} {self.config.safe_url}>"

    @property
    def name(self) -> str:
        """The name under which an application knows this database."""
        return self.config.name

    # -- engines ----------------------------------------------------------------------------

    @property
    def engine(self) -> AsyncEngine:
        """The running loop's engine, created on first use.

        Without a running loop it is one that the first loop to use it adopts.
        """
        return self._engines.current()

    @property
    def existing_engine(self) -> AsyncEngine | None:
        """What `engine` would return, if it is there already."""
        return self._engines.existing()

    def _create_engine(self) -> AsyncEngine:
        url = None
        if self.config.in_memory:
            if self._memory is None:
                self._memory = MemoryDatabase()
            url = self._memory.url(self.config.sqlalchemy_url)
        return create_engine(self.config, self.activity, url=url)

    # -- lifecycle --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stop()

    async def start(self) -> None:
        """Make ready for use. A database that is down is no error: it may come up later."""
        if not self._started_loops.enter(asyncio.get_running_loop()) or self.started:
            return
        self.draining = False
        if self._metadata is not None and not await self._create_tables():
            self._in_background(self._create_tables_later())
        self.started = True
        logger.info(
            "Database {!r} started: {} ({})",
            self.name,
            self.config.safe_url,
            self.config.effective_environment,
        )
        self.activity.emit("db.started")

    async def stop(self) -> None:
        """Return everything: closes gracefully for `CLOSE_TIMEOUT` seconds, then cuts.

        Sessions that are still in use get up to 10 seconds to end; a later use opens new engines.
        While other event loops run it too, only what this loop has is returned.
        """
        here = asyncio.get_running_loop()
        if self._started_loops.only(here):
            self.begin_draining()
        await self._end_tasks(here)
        await self._until_returned(here, _DRAIN_TIMEOUT)
        closings = {task for task in self._closings if task.get_loop() is here}
        if closings:
            await asyncio.wait(closings, timeout=CLOSE_TIMEOUT)
        engine = self._engines.take(here)
        if engine is not None:
            await self._dispose(here, engine)
        # Only now: the last one to leave would take the engine of a loop that is about to end.
        if not self._started_loops.leave(here):
            return
        was_started, self.started = self.started, False
        await self.drain()
        for loop, engine in self._engines.take_all():
            await self._dispose(loop, engine)
        if self._memory is not None:
            self._memory.remove()
            self._memory = None
        self.draining = False
        if was_started:
            logger.info("Database {!r} stopped", self.name)
            self.activity.emit("db.stopped")

    async def _end_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        tasks = {task for task in self._tasks if task.get_loop() is loop}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def begin_draining(self) -> None:
        """Have readiness say no from now on; requests in flight are served."""
        self.draining = True

    async def drain(self, *, timeout: float = _DRAIN_TIMEOUT) -> bool:
        """Stop being ready and wait until nothing is in use.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether everything was returned in time.
        """
        self.begin_draining()
        return await self._until_returned(None, timeout)

    async def _until_returned(self, loop: asyncio.AbstractEventLoop | None, timeout: float) -> bool:
        """Wait until nothing of a loop's, or of all loops', is in use."""
        deadline = time.monotonic() + timeout
        # Polled, because a connection may be returned in any of several loops and threads.
        while self._in_use(loop):
            if time.monotonic() >= deadline:
                held = "; ".join(str(holder) for holder in self.activity.holders())
                logger.warning("Connections of {!r} are still in use: {}", self.name, held)
                return False
            await asyncio.sleep(_DRAIN_STEP)
        return True

    def _in_use(self, loop: asyncio.AbstractEventLoop | None) -> int:
        engines = self._engines.all() if loop is None else (self._engines.existing(),)
        pools = [elastic_pool(engine) for engine in engines if engine is not None]
        return sum(pool.checkedout() for pool in pools if pool is not None)

    async def _dispose(self, loop: asyncio.AbstractEventLoop | None, engine: AsyncEngine) -> None:
        """Dispose of an engine in its own loop."""
        disposal = _dispose_within(engine, CLOSE_TIMEOUT)
        if loop is None or loop is asyncio.get_running_loop():
            await disposal
            return
        try:
            remote = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(disposal, loop))
        except RuntimeError:  # that loop is closed
            disposal.close()
        else:
            await asyncio.wait({remote}, timeout=2 * CLOSE_TIMEOUT)
            if remote.done() and not remote.cancelled() and remote.exception() is None:
                return
        # That loop hangs in somebody's code, or came to its end before it got to this.
        pool = elastic_pool(engine)
        if pool is not None:
            pool.abandon()

    def _in_background(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _create_tables(self) -> bool:
        assert self._metadata is not None
        try:
            async with self.engine.begin() as connection:
                await connection.run_sync(self._metadata.create_all)
        except UnavailableError as error:
            logger.warning("Tables are created once the database is there: {}", safe_error(error))
            return False
        return True

    async def _create_tables_later(self) -> None:
        # ASYNC110: no event says that a database is back.
        while not await self._create_tables():  # noqa: ASYNC110
            await asyncio.sleep(_SCHEMA_RETRY)

    # -- sessions ---------------------------------------------------------------------------

    def session(self, *, origin: str | None = None) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session for a block: the block commits, all else is rolled back, then released.

        Args:
            origin: Names the work in log lines and in the list of holders.
        """
        return _SessionBlock(self, self.open_session, origin)

    def read_session(
        self, *, origin: str | None = None
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a read session for a block: one round trip a statement, no writes.

        Args:
            origin: Names the work in log lines and in the list of holders.
        """
        return _SessionBlock(self, self.open_read_session, origin)

    def open_session(self) -> AsyncSession:
        """Open a session that the caller hands to `end()`, whatever happens."""
        self.activity.session_created()
        return self.sessionmaker()

    def open_read_session(self) -> AsyncSession:
        """Open a read session that the caller hands to `end()`, whatever happens."""
        self.activity.session_created()
        return self.read_sessionmaker()

    async def end(self, session: AsyncSession) -> None:
        """Roll a session back and return its connection, also when the caller is cancelled."""
        state = state_of(session)
        if not session.in_transaction() and all(held.closed for held in state.connections):
            state.ended = True
            if state.connections:  # else it was never used, and has nothing to let go of
                session.sync_session.close()  # nothing to send, so nothing to wait for
            return
        try:
            await end_session(session, self._terminate)
        except asyncio.CancelledError:
            rest = asyncio.get_running_loop().create_task(end_session(session, self._terminate))
            self._closings.add(rest)
            rest.add_done_callback(self._closings.discard)
            await asyncio.shield(rest)
            raise

    def _terminate(self, connection: Connection) -> None:
        if not connection.invalidated and connection.connection.driver_connection is not None:
            self._backend.terminate(connection.connection.driver_connection)

    def unit_of_work(self, *, commit: CommitMode = "manual") -> UnitOfWork:
        """Return the sessions of one request; whoever asks calls `release()` at its end.

        Args:
            commit: Who commits.
        """
        return UnitOfWork(self, commit=commit)

    async def run_in_transaction(
        self,
        fn: Callable[[AsyncSession], Awaitable[_T]],
        *,
        retries: int = 3,
        isolation_level: str | None = None,
    ) -> _T:
        """Run `fn(session)` and commit; again from its start when it lost against another one.

        A serialization failure or deadlock (40001, 40P01) is repeated with jittered backoff. Nothing
        else is, least of all a COMMIT whose outcome is unknown.

        Args:
            fn: Must have no effects outside of its session.
            retries: How often it is repeated at most.
            isolation_level: "SERIALIZABLE", say; None for the server's default.
        """
        return await run_with_retries(
            self.session, fn, retries=retries, isolation_level=isolation_level
        )

    # -- what others ask ----------------------------------------------------------------------

    @property
    def checks(self) -> MappingProxyType[str, Check]:
        """The application's own health checks, by name."""
        return MappingProxyType(self._checks)

    def add_check(self, name: str, check: Check) -> None:
        """Have `health()` await `check()` too; False or an exception means that it failed."""
        self._checks[name] = check

    @property
    def system_checks(self) -> tuple[SystemCheck, ...]:
        """The application's own system checks."""
        return tuple(self._system_checks)

    def add_system_check(self, check: SystemCheck) -> None:
        """Have `reviewpoint-db check`, and a start, await `check(database)` for findings too."""
        self._system_checks.append(check)

    async def health(self) -> HealthReport:
        """Look at the database within `health_timeout` seconds; never raises."""
        return await self._probe.check()

    def debug_info(self) -> ConnectionDebugInfo:
        """Return the state of the connections."""
        return connection_debug_info(self.existing_engine, self.activity)


class _SessionBlock:
    """A session for a block, ended with it."""

    __slots__ = ("_before", "_database", "_open", "_origin", "_session")

    def __init__(
        self, database: Database, open_session: Callable[[], AsyncSession], origin: str | None
    ) -> None:
        self._database = database
        self._open = open_session
        self._origin = origin

    async def __aenter__(self) -> AsyncSession:
        self._before = current_origin.get()
        if self._origin is not None:
            current_origin.set(self._origin)
        self._session = self._open()
        return self._session

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._database.end(self._session)
        finally:
            if self._origin is not None:
                # Not by a token: a fixture's teardown runs in another context than its setup.
                current_origin.set(self._before)


def _checked_metadata(
    config: DatabaseConfig, metadata: MetaData | None, *, create_all: bool
) -> MetaData | None:
    if not create_all:
        return None
    if metadata is None:
        raise ConfigurationError(
            "create_all=True needs to know the tables: pass metadata=Base.metadata as well."
        )
    if config.effective_environment == "prod":
        raise ConfigurationError(
            "create_all=True is refused in prod, where tables change by migrations: run "
            "`litestar database upgrade` (or `reviewpoint-db upgrade`) and leave create_all out."
        )
    return metadata


async def _dispose_within(engine: AsyncEngine, seconds: float) -> None:
    """Close an engine's connections; cut those that are still out or do not answer."""
    pool = elastic_pool(engine)
    if pool is not None:
        pool.terminate()
    try:
        await asyncio.wait_for(engine.dispose(), seconds + 1)
    except TimeoutError:
        if pool is not None:
            pool.abandon()
