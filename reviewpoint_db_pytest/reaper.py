"""Removes a run's folder, and the servers in it, when the run's owner ends: `python reaper.py FOLDER`.

It is run as a file and imports nothing of the package: it starts in the middle of somebody's tests.
The owner holds a lock as long as it lives, so that its end is noticed however it comes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

#: What the run's owner has locked as long as it lives.
LOCK = "owner.lock"
#: What each of its workers has locked, for all of them.
MEMBERS = "members.lock"
#: What has the names of the run's databases on a server that is not the run's, the template's first.
NOTED = "databases"
#: Seconds for a server to end; it has nothing to save.
_BOUND = 10.0
#: Seconds for workers that have lost their owner: pytest-xdist gives them 15.
_WORKERS = 20.0
#: Seconds for the databases on somebody's server to be dropped.
_DROPPING = 60.0
_STEP = 0.01


def reap(folder: Path) -> None:
    """Wait for the owner's end, then remove everything.

    Args:
        folder: The run's; `owner.lock` is in it.
    """
    with (folder / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _await_workers(folder)
        if (folder / NOTED).exists():  # the owner did not come to drop them
            _drop_databases(folder)
        for file in folder.glob("*/postmaster.pid"):
            _end(file)
        shutil.rmtree(folder, ignore_errors=True)


def _await_workers(folder: Path) -> None:
    """Wait for the workers' end, or else they would go on making what is to be removed."""
    with (folder / MEMBERS).open("a") as lock:

        def are_gone() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        _wait(are_gone, _WORKERS)


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(_STEP)


def _drop_databases(folder: Path) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "reviewpoint_db.testing.leftovers", str(folder)],
            cwd=Path(__file__).parents[1],  # where the package is
            timeout=_DROPPING,
            check=False,
        )


def _end(file: Path) -> None:
    """End a server at once."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(file.read_text().split("\n", 1)[0])
        if not _is_server_of(pid, file.parent):
            return
        os.kill(pid, signal.SIGQUIT)
        _wait(lambda: not file.exists(), _BOUND)


def _is_server_of(pid: int, data: Path) -> bool:
    """Whether a process is the server; after the machine's restart its number may be another's."""
    command = Path(f"/proc/{pid}/cmdline")
    return not command.exists() or os.fsencode(data) in command.read_bytes()


if __name__ == "__main__":
    reap(Path(sys.argv[1]))
