"""Ends the servers of a run whose owner was killed: `python -m tests.support.reaper PID FOLDER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(owner: int, folder: Path) -> None:
    """Waits for the owner's end, however it comes, and closes what it left open."""
    import psutil

    from tests.support.run import Run

    try:
        psutil.Process(owner).wait()
    except psutil.NoSuchProcess:
        pass  # it was faster than we
    if folder.exists():
        Run(folder).close()


if __name__ == "__main__":
    # The caller waits for the first process only; the second belongs to nobody.
    if os.fork():
        os._exit(0)
    main(int(sys.argv[1]), Path(sys.argv[2]))
