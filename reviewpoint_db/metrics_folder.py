"""The folder in which several processes have their metrics (`PROMETHEUS_MULTIPROC_DIR`)."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["forget_the_dead"]

#: A gauge of one process in the folder that several share.
_GAUGE_FILE: Final = re.compile(r"gauge_live[a-z]+_(\d{1,9})\.db")


def forget_the_dead(folder: Path) -> None:
    """Take the gauges of processes that have ended otherwise than in order out of what all are.

    Gunicorn has a hook for it, other servers have none. Whoever lives is left alone, also one of
    another user.

    Args:
        folder: Which the processes share.
    """
    from prometheus_client.multiprocess import mark_process_dead

    pids = {
        int(found[1]) for file in folder.iterdir() if (found := _GAUGE_FILE.fullmatch(file.name))
    }
    for pid in pids:
        if not _lives(pid):
            with suppress(FileNotFoundError):  # another process that starts was faster
                mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True
