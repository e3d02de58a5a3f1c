"""ReplicaWatch: a thread that measures which replicas live and how far they are behind.

The lag is not what `pg_last_xact_replay_timestamp()` suggests: an idle primary makes that grow, and
it cannot tell a dead WAL receiver. Here is remembered at which time the primary was at which place
of its log; a replica that has replayed that place has all that was committed before that time. While
the primary is silent nothing newer is known to exist, and the replicas stay as good as they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from reviewpoint_db.redaction import safe_error

__all__ = ["Address", "PrimaryLog", "ReplicaWatch", "Seen", "lsn_of"]

#: Seconds between two measurements at most, and at least.
_INTERVAL: Final = 0.5
_SHORTEST: Final = 0.05
#: Seconds within which a host answers, or counts as dead.
_TIMEOUT: Final = 1.0
#: Places of the primary's log that are remembered.
_PLACES: Final = 2000

_PRIMARY: Final = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END::text"
)
_REPLICA: Final = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text"


class Address(NamedTuple):
    """Where a host is, and what its driver needs."""

    url: URL
    connect_args: dict[str, Any]


class Seen(NamedTuple):
    """What a host said last.

    Args:
        error: Why it said nothing; None when it did.
        in_recovery: False for one that was promoted, and is no replica any more.
        replayed: The place of the log up to which it has everything.
        lag: Seconds that it is behind at most; None where that is not known.
    """

    error: str | None = None
    in_recovery: bool = True
    replayed: int = 0
    lag: float | None = None


def lsn_of(text: str) -> int:
    """Read a place of the log as PostgreSQL writes it: `16/B374D848`."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


class PrimaryLog:
    """Until when the primary was known to be at which place of its log."""

    def __init__(self) -> None:
        self._places: list[int] = []
        self._times: list[float] = []

    def note(self, place: int, at: float) -> None:
        """Remember that all that was committed before `at` stands before `place`."""
        if self._places and place < self._places[-1]:
            # Another primary, which lacks the last of what this one had: nothing here is comparable.
            self._places.clear()
            self._times.clear()
        if self._places and place == self._places[-1]:
            self._times[-1] = at
            return
        self._places.append(place)
        self._times.append(at)
        del self._places[:-_PLACES], self._times[:-_PLACES]

    def lag(self, replayed: int) -> float | None:
        """Return by how many seconds one that has replayed so much is behind at most."""
        behind = bisect_right(self._places, replayed)
        return self._times[-1] - self._times[behind - 1] if behind else None


class _Host:
    """A connection of the watch's own to one host, opened again when it is lost."""

    def __init__(self, address: Callable[[], Address]) -> None:
        self._address = address
        self._engine: AsyncEngine | None = None
        self._connection: AsyncConnection | None = None

    async def ask(self, question: str) -> Any:
        """Return the row of the answer, within the bound."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                if self._connection is None:
                    self._engine = _engine_of(self._address())
                    self._connection = await self._engine.connect()
                raw = await self._connection.get_raw_connection()
                driver: Any = raw.driver_connection
                return await driver.fetchrow(question)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Cut the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                raw = await connection.get_raw_connection()
                driver: Any = raw.driver_connection
                driver.terminate()
            with contextlib.suppress(Exception):
                await connection.invalidate()
                await connection.close()


def _engine_of(address: Address) -> AsyncEngine:
    # Without named statements it works behind a pooler too.
    arguments = {**address.connect_args, "statement_cache_size": 0, "timeout": _TIMEOUT}
    return create_async_engine(address.url, poolclass=NullPool, connect_args=arguments)


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
        self._ended = threading.Event()

    @property
    def running(self) -> bool:
        """Whether it measures; after a fork it does not."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._ended = ended = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._measure(ended)),
            name="reviewpoint_db replicas",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """End; may be called again."""
        self._ended.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=2 * _TIMEOUT)

    async def _measure(self, ended: threading.Event) -> None:
        primary, replicas = _Host(self._addresses[0]), [_Host(each) for each in self._addresses[1]]
        log = PrimaryLog()
        try:
            while not ended.is_set():
                await self._note_primary(primary, log)
                # One by itself, so that a silent one keeps nobody's news back.
                await asyncio.gather(
                    *(self._look(number, host, log, ended) for number, host in enumerate(replicas))
                )
                await asyncio.to_thread(ended.wait, self._interval)
        finally:
            for host in (primary, *replicas):
                await host.close()

    async def _note_primary(self, host: _Host, log: PrimaryLog) -> None:
        at = time.monotonic()
        with contextlib.suppress(Exception):  # its own pool and health tell of it
            place = (await host.ask(_PRIMARY))[0]
            if place is None:
                await host.close()  # it became a replica: ask for the primary anew
            else:
                log.note(lsn_of(place), at)

    async def _look(
        self, number: int, host: _Host, log: PrimaryLog, ended: threading.Event
    ) -> None:
        try:
            in_recovery, replayed = await host.ask(_REPLICA)
        except Exception as error:  # noqa: BLE001 - whatever it is, the host has not answered
            seen = Seen(error=safe_error(error))
        else:
            place = lsn_of(replayed) if replayed else 0
            lag = log.lag(place) if in_recovery else None
            seen = Seen(in_recovery=in_recovery, replayed=place, lag=lag)
        if not ended.is_set():  # an answer that comes after the stop brings no host back
            self._tell(number, seen)
