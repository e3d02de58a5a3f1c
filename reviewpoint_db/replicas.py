"""The replicas of one database, and which of them a read session uses.

`ReplicaWatch` measures the hosts in a thread and reports to `Replicas.tell`; sessions report a lost
connection to `Replicas.lost`. A request waits for a host in `caught_up` only, for a bounded time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from reviewpoint_db.activity import Activity
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.engine import connect_args_of, create_engine
from reviewpoint_db.forks import on_fork
from reviewpoint_db.lsn import MAX_LSN, parse_lsn
from reviewpoint_db.read_session import ReadSource, read_engine_of
from reviewpoint_db.replica import Replica, ReplicaState
from reviewpoint_db.replica_watch import Address, ReplicaWatch, Seen

__all__ = ["Replicas"]

_Loop = asyncio.AbstractEventLoop
#: Seconds between two looks at a replica while a session waits for it.
_STEP: Final = 0.01
_REPLAYED: Final = text("SELECT pg_last_wal_replay_lsn()::text")


class _Primary:
    """The primary as a read source, for when no replica can be read."""

    usable = True

    def __init__(self, engine: Callable[[], AsyncEngine]) -> None:
        self.engine = engine


class Replicas:
    """The replicas of one database.

    Args:
        config: Returns the database's settings, which tests replace.
        activity: Where their pools record what they do.
        primary: Returns the primary's engine of the running loop.
    """

    def __init__(
        self,
        config: Callable[[], DatabaseConfig],
        activity: Activity,
        primary: Callable[[], AsyncEngine],
    ) -> None:
        self._primary = _Primary(primary)
        self._config = config
        self._activity = activity
        self._limit = config().max_replica_lag
        self.hosts = tuple(
            Replica(
                f"{host or 'default'}:{port or 5432}", self._addressed(host, port), self._create
            )
            for host, port in config().read_hosts
        )
        self._usable: tuple[Replica, ...] = ()
        self._turn = 0
        self._told = False
        self._told_unmeasured = False
        self._lock = threading.RLock()
        self._watch = self._make_watch()
        on_fork(self)

    def forget_parent(self) -> None:
        """Begin in a forked child: nothing measures there, and nothing is known."""
        self._lock = threading.RLock()
        self._watch = self._make_watch()
        self._forget()

    # -- hosts --------------------------------------------------------------------------------

    def _addressed(self, host: str, port: int | None) -> Callable[[], Address]:
        def address() -> Address:
            config = self._config()
            url = config.read_sqlalchemy_url
            assert url is not None  # the watch and the engines end with it
            arguments = connect_args_of(config, read=True)
            # So that the server itself refuses what gets past us.
            arguments["server_settings"]["default_transaction_read_only"] = "on"
            arguments.pop("host", None)
            arguments.pop("port", None)
            if host.startswith("/"):
                arguments.update(host=host, port=port or 5432)
                url = url.set(host=None, port=None)
            elif host:
                url = url.set(host=host, port=port)
            return Address(url, arguments, config.pgbouncer, replica=True)

        return address

    def _create(self, address: Address) -> AsyncEngine:
        return create_engine(
            self._config(), self._activity, url=address.url, connect_args=address.connect_args
        )

    def _make_watch(self) -> ReplicaWatch:
        def primary() -> Address:
            config = self._config()
            return Address(config.sqlalchemy_url, connect_args_of(config), config.pgbouncer)

        return ReplicaWatch(
            primary, [host.address for host in self.hosts], limit=self._limit, tell=self.tell
        )

    # -- which reads next ---------------------------------------------------------------------

    def choose(self) -> Replica | None:
        """Return the next replica in turn; None for the primary."""
        if self._config().read_url is None:  # a test has led the database elsewhere
            return None
        if not self._watch.running:
            self.start()
        usable = self._usable
        if not usable:
            self._say_none()
            return None
        self._turn += 1
        return usable[self._turn % len(usable)]

    def tell(self, number: int, seen: Seen) -> None:
        """Take what the watch has measured at a host; called in its thread."""
        host = self.hosts[number]
        before, host.seen = host.seen, seen
        host.lost = False
        promoted = not seen.error and not seen.in_recovery
        fresh = seen.lag is not None and seen.lag <= self._limit
        self._set(host, usable=not seen.error and (promoted or fresh or seen.unmeasured))
        self._activity.replica_seen(host.name, seen.lag, up=host.usable)
        if promoted and (before is None or before.in_recovery):
            self._activity.warn(
                "replica_promoted",
                f"{host.name} of read_url is no replica (any more): it is not in recovery. It is "
                "read as before; nobody knows how far it is behind. Take it out of read_url.",
            )
        if seen.unmeasured:
            self._say_unmeasured()
        elif seen.lag is not None:
            self._told_unmeasured = False
        if seen.error and before is not None and not before.error:
            host.cut()

    def lost(self, source: ReadSource) -> bool:
        """Take a replica out whose connection was lost, until it answers the watch."""
        if isinstance(source, Replica):
            source.lost = True
            self._set(source, usable=False)
            self._activity.replica_seen(source.name, None, up=False)
            return True
        return False

    def _set(self, host: Replica, *, usable: bool) -> None:
        with self._lock:
            host.usable = usable
            self._usable = tuple(each for each in self.hosts if each.usable)
            if self._usable:
                self._told = False

    def _say_unmeasured(self) -> None:
        if not self._told_unmeasured:
            self._told_unmeasured = True
            self._activity.warn(
                "replica_lag_unknown",
                "The primary has not answered since the start, so nobody knows how far the replicas "
                "of read_url are behind: they are read all the same.",
            )

    def _say_none(self) -> None:
        with self._lock:
            if self._told or any(host.seen is None for host in self.hosts):
                return
            self._told = True
        states = "; ".join(
            f"{one.host} is {one.state}{f' ({one.error})' if one.error else ''}"
            for one in self.states()
        )
        self._activity.warn(
            "no_replica", f"No replica of read_url can be read, so the primary is: {states}."
        )

    async def caught_up(self, host: Replica, lsn: int, timeout: float) -> bool:
        """Wait until a replica has replayed the WAL up to an LSN.

        Returns:
            Whether it has, within the time.
        """
        if host.seen is not None and host.seen.replayed >= lsn:
            return True
        # One that was promoted replays nothing any more.
        if lsn == MAX_LSN or (host.seen is not None and not host.seen.in_recovery):
            return False
        engine = read_engine_of(host.engines.current())
        with contextlib.suppress(Exception):  # whatever keeps it, the primary has it
            async with asyncio.timeout(timeout), engine.connect() as connection:
                while True:
                    replayed = await connection.scalar(_REPLAYED)
                    if replayed is not None and parse_lsn(replayed) >= lsn:
                        return True
                    await asyncio.sleep(_STEP)
        return False

    def states(self) -> tuple[ReplicaState, ...]:
        """Return what is known of all hosts."""
        return tuple(host.state() for host in self.hosts)

    # -- what read sessions ask ---------------------------------------------------------------

    def source(self, required_lsn: int | None) -> ReadSource:
        """Return where a session is to read, in a greenlet.

        Args:
            required_lsn: The WAL position that it must see.
        """
        host = self.choose()
        if host is None:
            return self._primary
        if required_lsn is not None:
            wait = self._config().read_your_writes_wait
            if not await_only(self.caught_up(host, required_lsn, wait)):
                return self._primary
        return host

    # -- lifecycle ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to measure, unless that is under way."""
        with self._lock:
            if self._config().read_url is not None and not self._watch.running:
                self._forget()  # what the last watch saw may be long ago
                self._watch.start()

    def stop(self) -> None:
        """End measuring; until it begins again the primary is read."""
        self._watch.stop()
        self._forget()

    def _forget(self) -> None:
        self._told_unmeasured = False
        for host in self.hosts:
            host.seen = None
            host.lost = False
            self._set(host, usable=False)

    def existing(self) -> tuple[AsyncEngine | None, ...]:
        """Return the running loop's engines, as far as there are any."""
        return tuple(host.engines.existing() for host in self.hosts)

    def engines(self) -> tuple[AsyncEngine, ...]:
        """Return the engines of all hosts and open loops."""
        return tuple(engine for host in self.hosts for engine in host.engines.all())

    def take(self, loop: _Loop) -> list[AsyncEngine]:
        """Remove the engines of one loop, for the caller to dispose of."""
        taken = (host.engines.take(loop) for host in self.hosts)
        return [engine for engine in taken if engine is not None]

    def take_all(self) -> list[tuple[_Loop | None, AsyncEngine]]:
        """Remove every engine, with its loop, for the caller to dispose of."""
        return [taken for host in self.hosts for taken in host.engines.take_all()]
