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
import sys
import time
from pathlib import Path

#: Seconds for a server to end; it has nothing to save.
_BOUND = 10.0


def reap(folder: Path) -> None:
    """Wait for the owner's end, then remove everything.

    Args:
        folder: The run's; `owner.lock` is in it.
    """
    with (folder / "owner.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for file in folder.glob("*/postmaster.pid"):
            _end(file)
        shutil.rmtree(folder, ignore_errors=True)


def _end(file: Path) -> None:
    """End a server at once."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(file.read_text().split("\n", 1)[0])
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + _BOUND
        while file.exists() and time.monotonic() < deadline:
            time.sleep(0.01)


if __name__ == "__main__":
    reap(Path(sys.argv[1]))
