"""Commands as a user runs them, and Python programs, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

from tests.support.server import ROOT

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


def printed_by(program: str, *arguments: str) -> str:
    """Run a Python program that is given as text, expect it to succeed, and return what it prints."""
    return output_of([sys.executable, "-c", textwrap.dedent(program), *arguments], ROOT, os.environ)
