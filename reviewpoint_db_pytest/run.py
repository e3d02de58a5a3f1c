"""Run: what the processes of one run of pytest share: a folder, locks, and what is made once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from reviewpoint_db_pytest import reaper
from reviewpoint_db_pytest.reaper import LOCK, MEMBERS, NOTED

__all__ = ["NOTED", "Run", "roomy_folder"]

_PREFIX: Final = "reviewpoint_db-"
#: Seconds for the reaper to end servers and remove the folder.
_REAPING: Final = 15.0


class Run:
    """One run of pytest, in each of its processes.

    The process that the user started is the owner; workers of pytest-xdist join it by its folder.

    Args:
        folder: The run's.
        worker: This process's name in it.
    """

    def __init__(self, folder: Path, worker: str = "main") -> None:
        self.folder = folder
        self.worker = worker
        self._owned: IO[str] | None = None
        self._joined: IO[str] | None = None

    @classmethod
    def create(cls) -> Run:
        """Open a run that this process owns; `close()` ends it, and so does the process's end."""
        _remove_abandoned(roomy_folder())
        run = cls(Path(tempfile.mkdtemp(prefix=_PREFIX, dir=roomy_folder())))
        # The server's user passes through; a server's data belong to it alone.
        run.folder.chmod(0o755)
        # Locked before it has its name: a folder whose lock nobody holds is an abandoned one.
        made = run.folder / "lock.made"
        run._owned = made.open("w")
        fcntl.flock(run._owned, fcntl.LOCK_EX)
        made.rename(run.folder / LOCK)
        return run

    @property
    def owned(self) -> bool:
        """Whether this process is the one that the user started."""
        return self._owned is not None

    @property
    def has_noted(self) -> bool:
        """Whether there are databases to be dropped at the end."""
        return (self.folder / NOTED).exists()

    def close(self) -> None:
        """End the run: its servers, its files; in a worker, leave it."""
        for held in (self._joined, self._owned):
            if held is not None:
                # Not by closing alone: a process that was forked meanwhile would hold it on.
                fcntl.flock(held, fcntl.LOCK_UN)
                held.close()
        if self._owned is None:
            return
        deadline = time.monotonic() + _REAPING
        if (self.folder / "reaper").exists():
            while self.folder.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_unused(self) -> None:
        """Remove what an owner left that was killed before anybody had begun to watch it."""
        with contextlib.suppress(OSError), (self.folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the owner has it, if there is one
            if not (self.folder / "reaper").exists():
                shutil.rmtree(self.folder, ignore_errors=True)

    def once(self, name: str, make: Callable[[], str]) -> str:
        """Have one process make something; the others wait for it and get the same answer.

        Args:
            name: What it is, as a file's name.
            make: Makes it.
        """
        with self.lock(name):
            answer = self.folder / f"{name}.made"
            if not answer.exists():
                made = make()
                answer.touch(mode=0o600)  # a server's password may be in it
                answer.write_text(made)
                return made
            return answer.read_text()

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Exclude the run's other processes for the length of a block."""
        with (self.folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def watch(self) -> None:
        """Have the run's folder removed however the owner ends; begins once a run."""
        self.once("reaper", lambda: _start_reaper(self.folder))
        (self.folder / "reaper").touch()
        if self._owned is None and self._joined is None:
            self._joined = (self.folder / MEMBERS).open("a")
            fcntl.flock(self._joined, fcntl.LOCK_SH)


def _start_reaper(folder: Path) -> str:
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-I", "-S", reaper.__file__, str(folder)],
        cwd="/",
        # Neither Ctrl-C nor a closed terminal may end it before its work is done.
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process.returncode = 0  # it outlives this process, which is not to warn of it
    return str(process.pid)


def _remove_abandoned(parent: Path) -> None:
    """Have the folders removed of runs that were killed together with their reapers."""
    for lock in parent.glob(f"{_PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError), lock.open() as file:  # somebody else's, or just gone
            if lock.stat().st_uid != os.geteuid():
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _start_reaper(lock.parent)


def roomy_folder() -> Path:
    """Return a folder for temporary files that the server's user can reach too."""
    folders = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 - mkdtemp inside
    if os.geteuid() == 0:
        folders = [folder for folder in folders if reachable(folder)] or folders
    return folders[0]


def reachable(path: Path) -> bool:
    """Whether every user may enter a folder and all those above it."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
