"""Commands as a user runs them, each in a process of its own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def output_of(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], *, timeout: float = 60
) -> str:
    """Run a command, expect it to succeed, and return what it prints."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
