"""PgBouncer before a test server: Debian's package `pgbouncer`, on loopback, pooling by transaction.

`PgBouncer(…, tracking=True)` is one that tracks prepared statements, see `newer_pgbouncer`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

from tests.support.binaries import reachable, server_identity
from tests.support.newer_pgbouncer import FOLDER, loader
from tests.support.postgres import HOST, free_port
from tests.support.server import accepts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["TRACKING", "PgBouncer", "version"]

#: The version from which on prepared statements are tracked.
TRACKING = (1, 21)

#: Debian puts it where only root's PATH leads.
_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "pgbouncer"


def version(command: Sequence[str] = (_PROGRAM,)) -> tuple[int, int]:
    """Which PgBouncer it is.

    Raises:
        FileNotFoundError: None is installed: apt-get install pgbouncer.
    """
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    major, minor = said.stdout.split()[1].split(".")[:2]
    return int(major), int(minor)


def _tracking(run: Path) -> tuple[str, ...]:
    """The words that run one that tracks prepared statements.

    Args:
        run: A folder that the servers' user can reach.
    """
    if version() >= TRACKING:
        return (_PROGRAM,)
    if not (FOLDER / "usr/sbin/pgbouncer").exists():
        raise RuntimeError("PgBouncer is too old: python -m tests.support.newer_pgbouncer")
    folder = FOLDER
    if server_identity() and not reachable(folder / "usr/sbin"):
        folder = run / "newer-pgbouncer"
        shutil.copytree(FOLDER, folder, symlinks=True, dirs_exist_ok=True)
    return (*loader(folder), str(folder / "usr/sbin/pgbouncer"))


class PgBouncer:
    """`with PgBouncer(folder, url) as bouncer:` runs one before the server of a URL."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        pool_size: int = 4,
        pool_mode: str = "transaction",
        tracking: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Prepares a PgBouncer; `start()` runs it.

        Args:
            folder: Where its files are to be; created.
            url: The database behind it; clients log in with the same user and password.
            pool_size: Its `default_pool_size`.
            pool_mode: Its `pool_mode`.
            tracking: Whether it must be one that tracks prepared statements.
            settings: Further lines of its section `pgbouncer`.
        """
        self.folder = folder
        self.port = 0
        self._behind = urlsplit(url)
        self._settings = {
            "listen_addr": HOST,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": str(folder / "userlist.txt"),
            "logfile": str(folder / "pgbouncer.log"),
            "pool_mode": pool_mode,
            "default_pool_size": str(pool_size),
            "max_client_conn": "500",
            # A server that comes back is noticed at once.
            "server_login_retry": "1",
            **(settings or {}),
        }
        self._command = _tracking(folder.parent) if tracking else (_PROGRAM,)
        self.version = version(self._command)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """The database's URL through it."""
        login = self._behind.netloc.rpartition("@")[0]
        return self._behind._replace(netloc=f"{login}@{HOST}:{self.port}").geturl()

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it wrote so far."""
        file = self.folder / "pgbouncer.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> None:
        """Starts it and returns when it accepts connections; on the same port again.

        Raises:
            RuntimeError: It did not start; the message is its log.
        """
        self.port = self.port or free_port()
        self._write_files()
        self._process = subprocess.Popen(
            [*self._command, str(self.folder / "pgbouncer.ini")],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **server_identity(),
        )
        deadline = time.monotonic() + 10
        while not accepts(self.port):
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"PgBouncer did not start:\n{self.log}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Ends it at once, with all its connections."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it as an immediate shutdown does: every connection is closed."""
        # From 1.23 on SIGTERM waits for its clients.
        self._end(signal.SIGQUIT if self.version >= (1, 23) else signal.SIGTERM)

    def restart(self) -> None:
        """Kills it and starts it on the same port."""
        self.kill()
        self.start()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)

    def _write_files(self) -> None:
        self.folder.mkdir(exist_ok=True)
        database = unquote(self._behind.path.lstrip("/"))
        lines = [
            "[databases]",
            f"{database} = host={self._behind.hostname} port={self._behind.port} dbname={database}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in self._settings.items()),
            f"listen_port = {self.port}",
        ]
        (self.folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        user, password = unquote(self._behind.username or ""), unquote(self._behind.password or "")
        quoted = password.replace('"', '""')
        (self.folder / "userlist.txt").write_text(f'"{user}" "{quoted}"\n')
        if identity := server_identity():
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, identity["user"], identity["group"])
