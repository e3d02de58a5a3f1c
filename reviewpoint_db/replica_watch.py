"""ReplicaWatch: a thread that measures which replicas live and how far they are behind.

`pg_last_xact_replay_timestamp()` does not measure the lag: it grows while the primary is idle, and it
cannot tell a dead WAL receiver. So the watch records at which time the primary was at which WAL
position (LSN). A replica that has replayed an LSN has all that was committed before its time. While
the primary does not answer, nothing newer is known to exist, and the measured lag stays as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from reviewpoint_db.backend import REPLICA
from reviewpoint_db.hosts import HEAD_START
from reviewpoint_db.lsn import parse_lsn
from reviewpoint_db.pgbouncer import listen_for
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.running_loop import running_loop

__all__ = ["Address", "PrimaryLog", "ReplicaWatch", "Seen"]

#: Seconds between two measurements at most, and at least.
_INTERVAL: Final = 0.5
_SHORTEST: Final = 0.05
#: Seconds within which a host answers, or counts as dead.
_TIMEOUT: Final = 1.0
#: LSNs of the primary that are remembered.
_REMEMBERED: Final = 2000

_PRIMARY: Final = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END::text"
)
_REPLICA: Final = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text"


class Address(NamedTuple):
    """Where a host is, and what its driver needs.

    Args:
        url: With its password.
        connect_args: All of the driver's arguments.
        pgbouncer: Whether PgBouncer answers there; None to find out.
        replica: Whether it is one of `read_url`.
    """

    url: URL
    connect_args: dict[str, Any]
    pgbouncer: bool | None = None
    replica: bool = False


class Seen(NamedTuple):
    """What a host said last.

    Args:
        error: Why it said nothing; None when it did.
        in_recovery: False for one that was promoted, and is no replica any more.
        replayed: The LSN up to which it has everything.
        lag: Seconds that it is behind at most; None where that is not known.
        unmeasured: Whether the primary has never answered, so that nobody can know the lag.
    """

    error: str | None = None
    in_recovery: bool = True
    replayed: int = 0
    lag: float | None = None
    unmeasured: bool = False


class PrimaryLog:
    """The LSNs of the primary, each with the last time at which it was known to be there."""

    def __init__(self) -> None:
        self._lsns: list[int] = []
        self._times: list[float] = []

    def __bool__(self) -> bool:
        """Whether the primary has ever said where it is."""
        return bool(self._lsns)

    def note(self, lsn: int, at: float) -> None:
        """Remember that the primary was at `lsn` at the time `at`."""
        if self._lsns and lsn < self._lsns[-1]:
            # Another primary, which lacks the last of what this one had: nothing here is comparable.
            self._lsns.clear()
            self._times.clear()
        if self._lsns and lsn == self._lsns[-1]:
            self._times[-1] = at
            return
        self._lsns.append(lsn)
        self._times.append(at)
        del self._lsns[:-_REMEMBERED], self._times[:-_REMEMBERED]

    def lag(self, replayed: int) -> float | None:
        """Return by how many seconds a replica that has replayed this LSN is behind at most."""
        behind = bisect_right(self._lsns, replayed)
        return self._times[-1] - self._times[behind - 1] if behind else None


class _Host:
    """A connection of the watch's own to one host, opened again when it is lost."""

    def __init__(self, address: Callable[[], Address]) -> None:
        self._address = address
        self._connection: AsyncConnection | None = None
        #: The driver's; it is known before SQLAlchemy's, whose first questions may be interrupted.
        self._driver: Any = None

    async def ask(self, question: str) -> Any:
        """Return the row of the answer, within the bound."""
        try:
            if self._connection is None:
                address = self._address()
                async with asyncio.timeout(_time_to_connect(address)):
                    engine = _engine_of(address)
                    event.listen(engine.sync_engine, "connect", self._note_driver, insert=True)
                    self._connection = await engine.connect()
            async with asyncio.timeout(_TIMEOUT):
                return await self._driver.fetchrow(question)
        except BaseException:
            await self.close()
            raise

    def _note_driver(self, connection: Any, _record: object) -> None:
        self._driver = connection.driver_connection

    async def close(self) -> None:
        """Cut the connection; asyncpg says goodbye first, and awaits nothing."""
        connection, self._connection = self._connection, None
        driver, self._driver = self._driver, None
        if driver is not None:
            with contextlib.suppress(Exception):
                driver.terminate()
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.invalidate()
                await connection.close()


def _time_to_connect(address: Address) -> float:
    """Of several hosts, those before the right one may be silent."""
    hosts = address.connect_args.get("host")
    others = len(hosts) - 1 if isinstance(hosts, (list, tuple)) else 0
    return _TIMEOUT + HEAD_START * others


def _engine_of(address: Address) -> AsyncEngine:
    # Without named statements it works behind a pooler too.
    arguments = {**address.connect_args, "statement_cache_size": 0, "timeout": _TIMEOUT}
    engine = create_async_engine(address.url, poolclass=NullPool, connect_args=arguments)
    setattr(engine.dialect, REPLICA, address.replica)
    listen_for(engine, address.pgbouncer)
    return engine


class _Stop:
    """A stop signal from another thread for one measuring thread.

    It also counts as given once the loop that started the thread is closed: the thread and its
    connections would stay for ever otherwise.
    """

    def __init__(self) -> None:
        self._requested = False
        self._loop = running_loop()
        self._lock = threading.Lock()
        self._interrupt: Callable[[], object] | None = None

    @property
    def requested(self) -> bool:
        """Whether the thread is to end."""
        return self._requested or (self._loop is not None and self._loop.is_closed())

    def request(self) -> None:
        """Have the thread end, and interrupt what it waits for."""
        with self._lock:
            self._requested = True
            interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended by itself
                interrupt()

    def cancels(self, task: asyncio.Task[None]) -> None:
        """Have a task cancelled by the request."""
        loop = task.get_loop()
        with self._lock:
            self._interrupt = lambda: loop.call_soon_threadsafe(task.cancel)


class ReplicaWatch:
    """Measures the hosts in a thread of its own, whatever the application's loops do.

    Args:
        primary: Returns the primary's address.
        replicas: Return the replicas'.
        limit: The lag in seconds that counts; it is measured a few times as often.
        tell: Called in the thread with what all replicas said, in their order.
    """

    def __init__(
        self,
        primary: Callable[[], Address],
        replicas: list[Callable[[], Address]],
        *,
        limit: float,
        tell: Callable[[int, Seen], None],
    ) -> None:
        self._addresses = (primary, replicas)
        self._interval = max(min(_INTERVAL, limit / 4), _SHORTEST)
        self._tell = tell
        self._thread: threading.Thread | None = None
        self._stop = _Stop()

    @property
    def running(self) -> bool:
        """Whether it measures."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin, for as long as the running loop is not closed."""
        # Not in the thread: a fork in the middle of its import would leave the module locked in the child.
        self._addresses[0]().url.get_dialect().import_dbapi()
        self._stop = stop = _Stop()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._measure(stop)),
            name="reviewpoint_db replicas",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """End at once, whoever is being asked; may be called again."""
        self._stop.request()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=2 * _TIMEOUT)

    async def _measure(self, stop: _Stop) -> None:
        primary, replicas = _Host(self._addresses[0]), [_Host(each) for each in self._addresses[1]]
        rounds = asyncio.create_task(self._rounds(primary, replicas, stop))
        stop.cancels(rounds)
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await rounds
            finally:
                for host in (primary, *replicas):
                    await host.close()

    async def _rounds(self, primary: _Host, replicas: list[_Host], stop: _Stop) -> None:
        log = PrimaryLog()
        while not stop.requested:
            await self._note_primary(primary, log)
            # One by itself, so that a silent one keeps nobody's news back.
            await asyncio.gather(
                *(self._look(number, host, log, stop) for number, host in enumerate(replicas))
            )
            await asyncio.sleep(self._interval)

    async def _note_primary(self, host: _Host, log: PrimaryLog) -> None:
        at = time.monotonic()
        with contextlib.suppress(Exception):  # its own pool and health tell of it
            lsn = (await host.ask(_PRIMARY))[0]
            if lsn is None:
                await host.close()  # it became a replica: ask for the primary anew
            else:
                log.note(parse_lsn(lsn), at)

    async def _look(self, number: int, host: _Host, log: PrimaryLog, stop: _Stop) -> None:
        try:
            in_recovery, replayed = await host.ask(_REPLICA)
        except Exception as error:  # noqa: BLE001 - whatever it is, the host has not answered
            seen = Seen(error=safe_error(error))
        else:
            lsn = parse_lsn(replayed) if replayed else 0
            lag = log.lag(lsn) if in_recovery else None
            unmeasured = in_recovery and not log
            seen = Seen(in_recovery=in_recovery, replayed=lsn, lag=lag, unmeasured=unmeasured)
        if not stop.requested:  # an answer that comes after the stop brings no host back
            self._tell(number, seen)
