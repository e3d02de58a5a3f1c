"""Drops what a run that was ended from outside left on its server: `python -m ... FOLDER`.

The reaper runs it, in a process of its own, since it takes the package and a driver.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from reviewpoint_db.testing.errors import TestingConfigurationError
from reviewpoint_db.testing.servers import Server
from reviewpoint_db.testing.thread import LoopThread
from reviewpoint_db_pytest.reaper import NOTED

__all__ = ["SERVER", "drop_leftovers"]

#: What the run noted its server's URL as.
SERVER = "server_url"


def drop_leftovers(folder: Path, *, ended: bool = False) -> None:
    """Drop the databases that a run noted.

    Args:
        folder: The run's.
        ended: Whether the run is over already; another one may have taken its names since, which
            begins with a template of its own.
    """
    noted = folder / NOTED
    names = noted.read_text().split()
    owner = LoopThread()
    server = Server((folder / f"{SERVER}.made").read_text(), owner)
    try:
        # Where the server is gone, the tests have said so, and this would hide what they said.
        with contextlib.suppress(TestingConfigurationError):
            if not ended or server.mark_of(names[0]) == folder.name:
                for name in reversed(names):
                    server.drop(name)
        noted.unlink()
    finally:
        server.close()
        owner.stop()


if __name__ == "__main__":
    drop_leftovers(Path(sys.argv[1]), ended=True)
