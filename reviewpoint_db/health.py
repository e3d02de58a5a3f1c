"""Health checks: whether the database can be reached, answered within a deadline in any state.

Three things make the answer trustworthy: however many ask at once, one check runs (single flight);
it ends at its deadline, also against a server that says nothing; and when the pool is full it goes
around it by a connection of its own, so that "the pool is full" is never told as "the database is
down".
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from loguru import logger

from reviewpoint_db.context import current_origin, current_units
from reviewpoint_db.driver_errors import code_of
from reviewpoint_db.engine import backend_of, elastic_pool
from reviewpoint_db.health_memory import HealthMemory
from reviewpoint_db.health_report import Cause, CheckResult, HealthReport, Status, report_of
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.snapshots import LATE_FOR
from reviewpoint_db.sqlstate import connect_hint
from reviewpoint_db.unpooled import open_unpooled

if TYPE_CHECKING:
    from reviewpoint_db.backend import Backend
    from reviewpoint_db.database import Database

__all__ = (
    "SATURATED_AFTER",
    "Cause",
    "Check",
    "CheckResult",
    "HealthProbe",
    "HealthReport",
    "Status",
    "check_health",
)

Check = Callable[[], Awaitable[bool | None]]

#: Seconds without a free slot after which a pool counts as saturated.
SATURATED_AFTER: Final = 5.0
_Timing = tuple[float, float]  # seconds: connecting, and one round trip
_TOO_MANY_CLIENTS: Final = "53300"


class HealthProbe:
    """The health checks of one database, one at a time in each event loop.

    Example:
        >>> report = await HealthProbe(database).check()
        >>> report.status
        'healthy'

    Args:
        database: Whose configuration, engine and checks are used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._flights: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[HealthReport]] = (
            WeakKeyDictionary()
        )
        self._late: set[asyncio.Task[CheckResult]] = set()
        #: What the last check found out.
        self.memory = HealthMemory(database.activity)

    @property
    def _backend(self) -> Backend:
        return backend_of(self._database.config)

    async def check(self) -> HealthReport:
        """Check now, or join the check that is under way in this loop.

        Returns:
            The report, `health_timeout` seconds from now at the latest. Nothing is raised but the
            caller's own cancellation, which leaves the check to those who also wait for it.
        """
        loop = asyncio.get_running_loop()
        flight = self._flights.get(loop)
        if flight is None or flight.done():
            context = contextvars.copy_context()
            # The check runs for itself, not for the request that happened to ask first.
            context.run(current_units.set, None)
            context.run(current_origin.set, "health check")
            flight = loop.create_task(self._check(), context=context)
            self._flights[loop] = flight
        return await asyncio.shield(flight)

    async def _check(self) -> HealthReport:
        timeout = self._database.config.health_timeout
        ours = {
            "connection": asyncio.create_task(self._connection(timeout)),
            "migrations": asyncio.create_task(self._migrations()),
        }
        checks = {
            **ours,
            **{
                name: asyncio.create_task(_own_check(name, check))
                for name, check in self._database.checks.items()
            },
        }
        try:
            await asyncio.wait(checks.values(), timeout=timeout)
        finally:
            for task in checks.values():
                if not task.done():
                    self._leave(task)
        connection, migrations, *others = (
            _result(name, task, timeout) for name, task in checks.items()
        )
        # Whatever else kept it from an answer, the connection's check has told.
        pending = [migrations] if migrations.status == "degraded" else []
        others += self._replicas()
        report = report_of(
            connection, self._pool(), [*self._file(), *self._event_loop(), *pending], others
        )
        self.memory.note(report)
        return report

    def _replicas(self) -> list[CheckResult]:
        """Say what the watch knows of the replicas; without them the primary reads, and all works."""
        replicas = self._database.replicas
        if replicas is None:
            return []
        states = replicas.states()
        some = any(one.state == "reading" for one in states)
        behind = ((one, "" if one.lag is None else f", {one.lag:.1f} s behind") for one in states)
        return [
            CheckResult(
                name="replicas",
                status="healthy" if some else "degraded",
                detail="; ".join(f"{one.host}: {one.state}{lag}" for one, lag in behind),
            )
        ]

    def _leave(self, task: asyncio.Task[CheckResult]) -> None:
        """Cancel what is late without waiting for it: what hangs may hang in its cleanup too."""
        task.cancel()
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _connection(self, timeout: float) -> CheckResult:
        """Make one round trip: by an idle connection of the pool, or else by one outside of it.

        A pool without an idle one may be full, or have to connect: then it retries for as long as
        its own deadline allows, when the answer here could be no at once.
        """
        started = time.perf_counter()
        full = False
        try:
            pool = elastic_pool(self._database.engine)
            full = pool is not None and pool.full_since is not None
            idle = pool is None or pool.checkedin() > 0
            timing = await self._ping_pooled(timeout / 2) if idle else None
            if timing is None:
                timing = await self._ping_unpooled(started + timeout)
        except Exception as error:  # noqa: BLE001  a check reports, it never raises
            return _failed("connection", error, pool_full=full, hint=connect_hint(error))
        return CheckResult(
            name="connection", status="healthy", connected_in=timing[0], latency=timing[1]
        )

    async def _ping_pooled(self, timeout: float) -> _Timing | None:
        """Ping by a connection of the pool; None when that fails, without saying why."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout), self._database.engine.connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                connected = time.perf_counter()
                await self._backend.ping(driver, timeout)
                return connected - started, time.perf_counter() - connected
        except Exception:  # noqa: BLE001  the connection outside of the pool tells the cause
            return None

    async def _ping_unpooled(self, deadline: float) -> _Timing:
        """Ping by a connection outside of the pool."""
        started = time.perf_counter()
        pool, timeout = self._database.engine.pool, _remaining(deadline)
        async with open_unpooled(pool, self._backend, timeout=timeout) as driver:
            connected = time.perf_counter()
            await self._backend.ping(driver, _remaining(deadline))
            latency = time.perf_counter() - connected
        return connected - started, latency

    async def _migrations(self) -> CheckResult:
        detail = None
        if self._database.pending is not None:
            try:
                detail = await self._database.pending.look(self._database.engine)
            except Exception as error:  # noqa: BLE001  migration scripts are code, and raise what they like
                logger.debug("Migrations could not be checked: {}", safe_error(error))
        status: Status = "healthy" if detail is None else "degraded"
        return CheckResult(name="migrations", status=status, detail=detail)

    def _event_loop(self) -> list[CheckResult]:
        late = self._database.activity.loop_late
        if late is None or late.ago > LATE_FOR:
            return []
        by = f", blocked by {late.place}" if late.place else ""
        detail = f"was late by {late.seconds * 1000:.0f} ms{by}, {late.ago:.0f} s ago"
        return [CheckResult(name="event_loop", status="degraded", detail=detail)]

    def _file(self) -> list[CheckResult]:
        lost = self._database.activity.lost_file
        if lost is None or lost.ago > LATE_FOR:
            return []
        detail = f"{lost.path} was removed or replaced, noticed {lost.ago:.0f} s ago"
        return [CheckResult(name="file", status="degraded", detail=detail)]

    def _pool(self) -> CheckResult:
        try:
            pool = elastic_pool(self._database.engine)
        except Exception as error:  # noqa: BLE001  an engine that cannot be made has no pool
            return CheckResult(name="pool", status="unhealthy", detail=safe_error(error))
        since = None if pool is None else pool.full_since
        full_for = 0.0 if since is None else time.monotonic() - since
        if full_for < SATURATED_AFTER:
            return CheckResult(name="pool", status="healthy")
        detail = f"no free connection for {full_for:.0f} s"
        return CheckResult(name="pool", status="degraded", detail=detail)


async def check_health(database: Database) -> HealthReport:
    """Check a database; the same as `await database.health()`.

    Args:
        database: The database to check.

    Returns:
        The report, `health_timeout` seconds from now at the latest.
    """
    return await database.health()


async def _own_check(name: str, check: Check) -> CheckResult:
    """Run a check of the application: it fails by raising or by returning False."""
    started = time.perf_counter()
    try:
        passed = await check()
    except Exception as error:  # noqa: BLE001  foreign code, and a check reports, it never raises
        return _failed(name, error)
    latency = time.perf_counter() - started
    if passed is False:
        return CheckResult(name=name, status="unhealthy", latency=latency, detail="failed")
    return CheckResult(name=name, status="healthy", latency=latency)


def _failed(
    name: str, error: Exception, *, pool_full: bool = False, hint: str | None = None
) -> CheckResult:
    code = code_of(error)
    # A server that says "too many clients" to us, while our own pool holds connections, is there.
    there = pool_full and code == _TOO_MANY_CLIENTS
    return CheckResult(
        name=name,
        status="degraded" if there else "unhealthy",
        detail=safe_error(error),
        code=code,
        hint=None if there else hint,
    )


def _result(name: str, task: asyncio.Task[CheckResult], timeout: float) -> CheckResult:
    if task.done() and not task.cancelled():
        return task.result()
    return CheckResult(name=name, status="unhealthy", detail=f"no answer within {timeout:g} s")


def _remaining(deadline: float) -> float:
    """Seconds until the deadline; a little more than none, since 0 means no limit to some."""
    return max(deadline - time.perf_counter(), 0.001)
