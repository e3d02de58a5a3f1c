"""Database: the one owner of engines, sessions and their end.

Who closes a connection:

- `Database.end` returns a session's connection to its pool, which keeps it or closes it
  (`invalidated`, `unclean`).
- `Supply._close` closes what a pool no longer wants, in a task of its own: a connection that is too
  old (`lifetime`), idle for too long (`idle`) or dead (`lost`, `ping_failed`).
- `Database.stop` closes all that are left (`disposed`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeVar

from loguru import logger
from sqlalchemy import Connection, MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from reviewpoint_db.activity import Activity
from reviewpoint_db.after_commit import until_run
from reviewpoint_db.config import DatabaseConfig, refuse_config
from reviewpoint_db.debug_info import ConnectionDebugInfo, connection_debug_info
from reviewpoint_db.disposal import dispose_all, until_returned
from reviewpoint_db.engine import backend_of, create_engine
from reviewpoint_db.forks import on_fork
from reviewpoint_db.gauges import PoolGauges, read_gauges
from reviewpoint_db.health import Check, HealthProbe, HealthReport
from reviewpoint_db.health_memory import HealthMemory
from reviewpoint_db.health_report import OWN_CHECKS
from reviewpoint_db.live import Live
from reviewpoint_db.loops import EnginesByLoop, StartedLoops
from reviewpoint_db.pending import PendingMigrations
from reviewpoint_db.pool import CLOSE_TIMEOUT
from reviewpoint_db.read_session import make_read_session_class
from reviewpoint_db.replicas import Replicas
from reviewpoint_db.retries import run_with_retries
from reviewpoint_db.server_view import ServerView, look_at_server
from reviewpoint_db.session import SESSION_DEFAULTS, BoundSession, make_session_class
from reviewpoint_db.session_state import state_of
from reviewpoint_db.settings import refuse
from reviewpoint_db.sqlite import MemoryDatabase
from reviewpoint_db.tables import MissingTables, check_metadata
from reviewpoint_db.transaction import (
    CommitMode,
    SessionBlock,
    Terms,
    UnitOfWork,
    checked_commit,
    end_session,
)
from reviewpoint_db.watch import Watch
from reviewpoint_db.write_tracking import WriteTrackingSession

if TYPE_CHECKING:
    from types import TracebackType

    from reviewpoint_db.checks import SystemCheck
    from reviewpoint_db.holder import HolderSnapshot

__all__ = ["Database"]

_T = TypeVar("_T")
#: Seconds that `drain()` and `stop()` wait for sessions in use.
_DRAIN_TIMEOUT: Final = 10.0


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

    #: Called with each database when it is made, and before it makes an engine: the testing kit
    #: replaces the database's `config` here, so that applications in a test land on the test's.
    prepare: ClassVar[Callable[[Database], None] | None] = None

    def __init__(
        self,
        config: DatabaseConfig | None = None,
        *,
        metadata: MetaData | None = None,
        create_all: bool = False,
    ) -> None:
        self.config = config if config is not None else DatabaseConfig.from_env()
        if not isinstance(self.config, DatabaseConfig):
            raise refuse_config(self.config)
        check_metadata(metadata)
        if Database.prepare is not None:
            Database.prepare(self)
        #: The application's tables, for migrations too.
        self.metadata = metadata
        self._tables = MissingTables(self.config, metadata) if create_all else None
        self.activity = Activity(self.config.name)
        self.activity.answers.each = self.config.effective_environment == "test"
        self.started = False
        self.draining = False
        #: Whether migrations are pending, where it is known what they are.
        self.pending: PendingMigrations | None = None
        self._memory: MemoryDatabase | None = None
        self._engines = EnginesByLoop(self._create_engine)
        self._started_loops = StartedLoops()
        self._checks: dict[str, Check] = {}
        self._system_checks: list[SystemCheck] = []
        self._probe = HealthProbe(self)
        self._watch = Watch(
            self.activity,
            leak_threshold=self.config.leak_threshold,
            idle_threshold=self.config.idle_in_transaction_threshold,
            try_again=self._try_again,
        )
        #: What the live page needs of this process all the time.
        self.live = Live(self)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closings: set[asyncio.Task[None]] = set()
        #: What runs after COMMITs.
        self._after_commits: set[asyncio.Task[None]] = set()
        #: The hosts of `read_url`; None where there are none.
        self.replicas: Replicas | None = (
            Replicas(lambda: self.config, self.activity, self._engines.current)
            if self.config.read_url is not None
            else None
        )
        base = self.config.session_class or AsyncSession
        self.sessionmaker: async_sessionmaker[AsyncSession] = async_sessionmaker(
            class_=make_session_class(
                base,
                self._engines.current,
                sync_base=WriteTrackingSession if self.replicas is not None else BoundSession,
                after_commits=self._after_commits,
            ),
            **SESSION_DEFAULTS,
        )
        self.read_sessionmaker: async_sessionmaker[AsyncSession] = async_sessionmaker(
            class_=make_read_session_class(base, self._engines.current, replicas=self.replicas),
            autoflush=False,
            **SESSION_DEFAULTS,
        )
        on_fork(self)

    def forget_parent(self) -> None:
        """Begin in a forked child, as a database that was not started."""
        self.started = self.draining = False
        self._tasks, self._closings = set(), set()
        self._after_commits.clear()  # the sessions' class has it too
        self._memory = None  # the parent goes on to use it

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

    def take_engines(self) -> Iterator[tuple[asyncio.AbstractEventLoop | None, AsyncEngine]]:
        """Give up all engines, each with its loop, for the caller to dispose of."""
        replicas = () if self.replicas is None else self.replicas.take_all()
        return chain(self._engines.take_all(), replicas)

    def _all_engines(self) -> tuple[AsyncEngine, ...]:
        replicas = () if self.replicas is None else self.replicas.engines()
        return (*self._engines.all(), *replicas)

    def _create_engine(self) -> AsyncEngine:
        if Database.prepare is not None:
            Database.prepare(self)
        url = None
        if self.config.in_memory:
            if self._memory is None:
                self._memory = MemoryDatabase()
            url = self._memory.url(self.config.sqlalchemy_url)
        self._watch.join_loop()  # another loop than that of the start, maybe
        return create_engine(self.config, self.activity, url=url)

    # -- lifecycle --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start; inside of another start of this loop, an application's say, wait for that one."""
        here = asyncio.get_running_loop()
        async with self._started_loops.one_at_a_time(here):
            if not (self.started and self._started_loops.enter_inner(here)):
                await self._start(here)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop, unless another start of this loop goes on."""
        if not self._started_loops.leave_inner(asyncio.get_running_loop()):
            await self.stop()

    async def start(self) -> None:
        """Make ready for use. A database that is down is no error: it may come up later."""
        here = asyncio.get_running_loop()
        async with self._started_loops.one_at_a_time(here):
            await self._start(here)

    async def _start(self, here: asyncio.AbstractEventLoop) -> None:
        if not self._started_loops.enter(here) or self.started:
            return
        try:
            await self._begin()
        except BaseException:
            await self.stop()
            raise

    async def _begin(self) -> None:
        self.draining = False
        if self._tables is not None and not await self._tables.create(self.engine):
            task = asyncio.get_running_loop().create_task(self._tables.create_later(self.engine))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.started = True
        # Tests start applications by the hundred, and block the loop as they like.
        if self.config.observe and self.config.effective_environment != "test":
            self._watch.start()
        if self.replicas is not None:
            self.replicas.start()
        logger.info(
            "Database {!r} started: {} ({})",
            self.name,
            self.config.safe_url,
            self.config.effective_environment,
        )
        self.activity.emit("db.started")

    async def stop(self) -> None:
        """Return everything: closes gracefully for `CLOSE_TIMEOUT` seconds, then cuts.

        Functions after a COMMIT, and sessions that are still in use, get up to 10 seconds each to
        end; a later use opens new engines.
        While other event loops run it too, only what this loop has is returned.
        """
        here = asyncio.get_running_loop()
        if self._started_loops.only(here):
            self.begin_draining()
        await self._end_tasks(here)
        await until_run(self._after_commits, _DRAIN_TIMEOUT)  # they may use sessions of their own
        await self._until_returned(here, _DRAIN_TIMEOUT)
        closings = {task for task in self._closings if task.get_loop() is here}
        if closings:
            await asyncio.wait(closings, timeout=CLOSE_TIMEOUT)
        own = self._engines.take(here)
        replicas = self.replicas.take(here) if self.replicas is not None else []
        await dispose_all((here, engine) for engine in (own, *replicas) if engine is not None)
        # Only now: the last one to leave would take the engine of a loop that is about to end.
        if not self._started_loops.leave(here):
            return
        was_started, self.started = self.started, False
        self._watch.stop()
        self.activity.answers.tell()
        if self.replicas is not None:
            await asyncio.to_thread(self.replicas.stop)
        await self.drain()
        await dispose_all(self.take_engines())
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
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)

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

        def engines() -> tuple[AsyncEngine | None, ...]:
            replicas = self.replicas
            if loop is None:
                return self._all_engines()
            own = self._engines.existing()
            return (own,) if replicas is None else (own, *replicas.existing())

        if await until_returned(engines, timeout):
            return True
        held = "; ".join(str(holder) for holder in self.activity.holders())
        logger.warning("Connections of {!r} are still in use: {}", self.name, held)
        return False

    # -- sessions ---------------------------------------------------------------------------

    def session(self, *, origin: str | None = None) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session for a block: the block commits, all else is rolled back, then released.

        Args:
            origin: Names the work in log lines and in the list of holders.
        """
        return SessionBlock(self, self.open_session, origin)

    def read_session(
        self, *, origin: str | None = None
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a read session for a block: one round trip a statement, no writes.

        Args:
            origin: Names the work in log lines and in the list of holders.
        """
        return SessionBlock(self, self.open_read_session, origin)

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
        try:
            if not session.in_transaction() and all(held.closed for held in state.connections):
                state.ended = True
                if state.connections:  # else it was never used, and has nothing to let go of
                    session.sync_session.close()  # nothing to send, so nothing to wait for
                return
            await end_session(session, self._terminate)
        except asyncio.CancelledError:
            rest = asyncio.get_running_loop().create_task(end_session(session, self._terminate))
            self._closings.add(rest)
            rest.add_done_callback(self._closings.discard)
            await asyncio.shield(rest)
            raise
        finally:
            work, state.work = state.work, None
            if work is not None:
                self.activity.session_ended(work)

    def _terminate(self, connection: Connection) -> None:
        if not connection.invalidated and connection.connection.driver_connection is not None:
            backend_of(self.config).terminate(connection.connection.driver_connection)

    def unit_of_work(self, *, commit: CommitMode = "manual") -> UnitOfWork:
        """Return the sessions of one request; whoever asks calls `release()` at its end.

        Args:
            commit: Who commits.
        """
        return UnitOfWork(Terms(self, checked_commit(commit) == "autocommit"))

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

    def _try_again(self) -> None:
        """Check in the background, for nobody but those whom `activity.reachability` tells."""
        if self.draining or not self.started:  # it would outlive the stop
            return
        task = asyncio.get_running_loop().create_task(self.health())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what others ask ----------------------------------------------------------------------

    @property
    def checks(self) -> MappingProxyType[str, Check]:
        """The application's own health checks, by name."""
        return MappingProxyType(self._checks)

    def add_check(self, name: str, check: Check) -> None:
        """Have `health()` await `check()` too; False or an exception means that it failed.

        Args:
            name: Its name in the report; a check of the same name is replaced.
            check: Foreign code, which may raise what it likes.

        Raises:
            ConfigurationError: The name is that of a check of this package.
        """
        if name in OWN_CHECKS:
            taken = ", ".join(sorted(OWN_CHECKS))
            raise refuse(
                "name",
                repr(name),
                "this package has a check of that name",
                f"use another one than {taken}",
            )
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

    @property
    def last_health(self) -> HealthMemory:
        """What the last check of `health()` found out, and when."""
        return self._probe.memory

    def gauges(self) -> PoolGauges:
        """Return how full the pools are, of all event loops as one."""
        return read_gauges(self._all_engines())

    async def look_at_server(self, holders: tuple[HolderSnapshot, ...] | None = None) -> ServerView:
        """Ask the server who does what on its side; within `health_timeout` seconds, never raises."""
        return await look_at_server(self, holders)

    def debug_info(self) -> ConnectionDebugInfo:
        """Return the state of the connections."""
        return connection_debug_info(self.existing_engine, self.activity)
