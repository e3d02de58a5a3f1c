"""What one run of pytest shares between its processes: a folder, and one PostgreSQL server.

The process that the user started owns the folder; under pytest-xdist its workers are told where it
is. Whoever needs the shared server first starts it. All servers end with the run: the owner stops
them, and should it be killed, a reaper process that watches it does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.binaries import NEWEST, Version, reachable, server_identity
from tests.support.cluster import PostgresCluster
from tests.support.postgres import PostgresServer, RemoteServer

if TYPE_CHECKING:
    from collections.abc import Iterator

URL_VARIABLE = "REVIEWPOINT_TEST_DATABASE_URL"


class Run:
    """The run that this process belongs to."""

    def __init__(self, folder: Path, worker: str = "main") -> None:
        self.folder = folder
        self.worker = worker

    @classmethod
    def create(cls) -> Run:
        """Opens a run that this process owns; `close()` ends it."""
        run = cls(Path(tempfile.mkdtemp(prefix="reviewpoint-tests-", dir=_roomy_folder())))
        # The servers' user passes through; each server's data belong to it alone.
        run.folder.chmod(0o755)
        (run.folder / "owner").write_text(str(os.getpid()))
        return run

    def close(self) -> None:
        """Ends every server of the run and removes its folder."""
        for file in self.folder.glob("*/postmaster.pid"):
            PostgresServer(file.parent).remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def shared_server(self) -> RemoteServer:
        """The server for tests that do not disturb it; the first who asks starts it."""
        url = os.environ.get(URL_VARIABLE)
        if url:
            return RemoteServer.from_url(url)
        self._watch()
        server = PostgresServer(self.folder / "shared")
        port_file = self.folder / "shared.port"
        with self._lock("shared"):
            if port_file.exists():
                server.port = int(port_file.read_text())
            else:
                server.start()
                port_file.write_text(str(server.port))
        return server

    def own_server(self, name: str = "own", version: Version = NEWEST) -> PostgresServer:
        """A server of this process alone, not started yet."""
        self._watch()
        return PostgresServer(self.folder / f"{name}-{version}-{self.worker}", version=version)

    def own_cluster(
        self,
        name: str = "cluster",
        *,
        standbys: int = 1,
        synchronous: bool = False,
        version: Version = NEWEST,
    ) -> PostgresCluster:
        """A primary with standbys, of this process alone, not started yet."""
        self._watch()
        folders = [self.folder / f"{name}{n}-{version}-{self.worker}" for n in range(standbys + 1)]
        return PostgresCluster(folders, synchronous=synchronous, version=version)

    def _watch(self) -> None:
        """Starts the reaper, once a run."""
        with self._lock("reaper"):
            started = self.folder / "reaper"
            if not started.exists():
                owner = (self.folder / "owner").read_text()
                command = [sys.executable, "-m", "tests.support.reaper", owner, str(self.folder)]
                subprocess.run(
                    command,
                    check=True,
                    cwd=Path(__file__).parents[2],
                    # Neither Ctrl-C nor a closed terminal may end it before its work is done.
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                started.touch()

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self.folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _roomy_folder() -> Path:
    """A folder for temporary files that the servers' user can reach too."""
    folders = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    for folder in folders:
        if not server_identity() or reachable(folder):
            return folder
    raise RuntimeError(f"the user nobody can reach none of {folders}: set TMPDIR to one it can")
