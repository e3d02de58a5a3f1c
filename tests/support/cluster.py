"""A PostgreSQL primary with streaming standbys for the tests: promote, freeze, lag, rejoin.

    cluster = run.own_cluster("pair", synchronous=True)
    cluster.start()
    url = cluster.create_database("papers")     # with all hosts
    cluster.primary.kill()
    cluster.promote(1)
    cluster.rejoin(0)                           # the old primary follows the new one
    cluster.remove()

Each member is a `PostgresServer` in `servers`, and keeps its port for all its life. Nothing here
decides who leads: the test does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from tests.support.binaries import NEWEST, Version, server_identity
from tests.support.postgres import HOST, PostgresServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

SECONDS = 30.0
"""For which any change of the cluster is waited for."""

_SETTINGS = {
    "wal_level": "replica",
    # What pg_rewind needs.
    "wal_log_hints": "on",
    "full_page_writes": "on",
    # There are no slots: a standby that was away finds what it missed.
    "wal_keep_size": "256MB",
    "wal_retrieve_retry_interval": "100ms",
    "synchronous_standby_names": "",
}


class Member(PostgresServer):
    """One server of a cluster; its data may be a copy of another's."""

    source: Member | None = None
    """Whom it follows; None makes it a primary."""

    def conninfo(self, name: str = "") -> str:
        """How a libpq program reaches it."""
        login = f"host={self.host} port={self.port} user={self.user} password={self.password}"
        return f"{login} application_name={name}" if name else login

    def follow(self, source: Member) -> None:
        """Is to stream from another from its next start or reload on."""
        self.source = source
        self.set(
            primary_conninfo=source.conninfo(f"port_{self.port}"), synchronous_standby_names=""
        )

    def mark_as_standby(self) -> None:
        """Makes a stopped server start as a standby."""
        (self.folder / "standby.signal").touch()
        _give(self.folder / "standby.signal")

    def promote(self) -> None:
        """Ends its recovery and returns when it accepts writes."""
        self.source = None
        self._installation.run("pg_ctl", "-D", str(self.folder), "promote", "-w", "-t", "30")

    def rewind(self, source: Member) -> None:
        """Takes back what it has and `source` has not; it must be stopped."""
        self._installation.run(
            *("pg_rewind", "--no-sync", "-D", str(self.folder)),
            *("--source-server", source.conninfo() + " dbname=postgres"),
        )

    def _make_data(self) -> None:
        if self.source is None:
            super()._make_data()
            return
        self.folder.mkdir(mode=0o700)
        _give(self.folder)
        self._installation.run(
            *("pg_basebackup", "--no-sync", "-c", "fast", "-X", "stream"),
            *("-D", str(self.folder), "-d", self.source.conninfo()),
        )
        self.mark_as_standby()


class PostgresCluster:
    """A primary (at first `servers[0]`) and its standbys, on loopback."""

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        synchronous: bool = False,
        version: Version = NEWEST,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Prepares a cluster; `start()` runs it.

        Args:
            folders: Of the data, one for each server.
            synchronous: Whether a COMMIT waits for one standby, as long as there was one.
            version: Major version, 16 or 18.
            settings: Further lines for everybody's postgresql.conf.
        """
        self.synchronous = synchronous
        self.servers = [
            Member(folder, version=version, settings={**_SETTINGS, **(settings or {})})
            for folder in folders
        ]
        self._leader = 0

    @property
    def primary(self) -> Member:
        """The one that was promoted last."""
        return self.servers[self._leader]

    @property
    def standbys(self) -> list[Member]:
        """All the others."""
        return [server for server in self.servers if server is not self.primary]

    def url(self, database: str, **parameters: str) -> str:
        """The URL with all hosts, in the order of `servers`, and libpq's parameters."""
        first = self.servers[0].url(database)
        address = ",".join(f"{HOST}:{server.port}" for server in self.servers)
        url = first.replace(f"@{HOST}:{self.servers[0].port}", f"@{address}")
        return f"{url}?{urlencode(parameters)}" if parameters else url

    def create_database(self, name: str) -> str:
        """Creates a database on all, and returns its URL with all hosts."""
        self.primary.create_database(name)
        self.catch_up()
        return self.url(name)

    def start(self) -> None:
        """Starts all of them and returns when the standbys stream."""
        self.primary.start()
        for standby in self.standbys:
            if not standby.port:
                standby.port = free_port()
            standby.follow(self.primary)
            standby.start()
        self._settle()

    def stop(self) -> None:
        """Stops all of them, the primary last."""
        for server in (*self.standbys, self.primary):
            server.stop("immediate")

    def remove(self) -> None:
        """Stops all of them at once and removes their data."""
        for server in self.servers:
            server.remove()

    def promote(self, index: int) -> None:
        """Makes a standby the primary and has the others follow it.

        The old primary is not touched: kill, stop or freeze it before, or leave it as it is.
        It returns when the new one accepts writes; it waits for no standby until one rejoins.
        """
        old, self._leader = self.primary, index
        self.primary.promote()
        for server in self.standbys:
            if server is not old and server.running:
                server.follow(self.primary)
                server.reload()

    def switch_over(self, index: int) -> None:
        """Hands over in an orderly way: stops the primary, promotes another, rejoins the first."""
        old = self._leader
        self.primary.stop("fast")
        self.promote(index)
        self.rejoin(old)

    def rejoin(self, index: int, *, rewind: bool = True) -> None:
        """Has a server that was a primary follow the present one, and returns when it streams.

        Args:
            index: Of the server; when it still runs, or is frozen, it is killed.
            rewind: Keep its data by pg_rewind; else they are copied anew.
        """
        server = self.servers[index]
        server.kill()
        server.follow(self.primary)
        if rewind:
            server.rewind(self.primary)
            server.mark_as_standby()
        else:
            shutil.rmtree(server.folder)
        server.start()
        self._settle()

    def freeze(self, index: int) -> None:
        """Stops a server in its tracks: it keeps its connections and answers nothing."""
        self.servers[index].freeze()

    def thaw(self, index: int) -> None:
        """Lets a frozen server go on."""
        self.servers[index].thaw()

    def pause_replay(self, index: int) -> None:
        """Has a standby receive and not apply, from now on: its lag grows."""
        standby = self.servers[index]
        standby.psql("SELECT pg_wal_replay_pause()")
        _until(lambda: standby.psql("SELECT pg_get_wal_replay_pause_state()") == "paused")

    def resume_replay(self, index: int) -> None:
        """Has a standby apply again."""
        self.servers[index].psql("SELECT pg_wal_replay_resume()")

    def catch_up(self) -> None:
        """Returns when every running standby has applied all that the primary has written."""
        end = self.primary.psql("SELECT pg_current_wal_flush_lsn()")
        question = f"SELECT pg_last_wal_replay_lsn() >= '{end}'"
        for standby in self.standbys:
            if standby.running:
                _until(lambda standby=standby: standby.psql(question) == "t")  # type: ignore[misc]

    def _settle(self) -> None:
        """Waits for the standbys to stream, and from then on for each COMMIT on one of them."""
        names = {f"port_{standby.port}" for standby in self.standbys if standby.running}
        streaming = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'"
        _until(lambda: names <= set(self.primary.psql(streaming).splitlines()))
        if self.synchronous:
            self.primary.set(synchronous_standby_names="*")
            self.primary.reload()
            chosen = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            _until(lambda: self.primary.psql(chosen) == "1")


def _give(path: Path) -> None:
    """Gives what we made to the servers' user."""
    if identity := server_identity():
        os.chown(path, identity["user"], identity["group"])


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            if condition():
                return
        except subprocess.CalledProcessError:
            pass  # it is starting, or has no such function at this moment
        if time.monotonic() > deadline:
            raise TimeoutError("the cluster did not come to the awaited state")
        time.sleep(0.02)
