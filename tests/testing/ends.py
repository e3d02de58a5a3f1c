"""What a run of pytest has left when it is over, and when."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.postgres import RemoteServer


def left(folder: Path) -> list[Path]:
    """What a run left of itself; the folder where processes know each other is every user's."""
    shared = f"reviewpoint_db-{os.getuid()}"
    return [path for path in folder.glob("reviewpoint_db-*") if path.name != shared]


def databases_of_tests(server: RemoteServer, url: str) -> list[str]:
    """What a run whose configured database this is has on the server."""
    name = f"test_{url.rpartition('/')[2]}"[:40]
    return [one for one in server.databases() if one.startswith(name)]


def wait_until(condition: Callable[[], object], *, timeout: float = 30.0) -> None:
    """Waits until a condition holds; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
