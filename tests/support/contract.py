"""The contract's suite once more, with something between its applications and the database."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.support.server import ROOT


def contract_holds(through: str, selected: str, *, at_least: int) -> None:
    """Run a part of tests/contract in a pytest of its own, and expect it to pass.

    Args:
        through: What is in between: `CONTRACT_THROUGH` of tests/contract/world.py.
        selected: Which tests, as pytest's `-k`.
        at_least: More than so many tests, so that none is left out unnoticed.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    command = [sys.executable, "-m", "pytest", "tests/contract", "-q", "-p", "no:cacheprovider"]
    finished = subprocess.run(
        [*command, "-n", "2", "--dist", "worksteal", "-k", selected],
        cwd=ROOT,
        env={**environment, "CONTRACT_THROUGH": through},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    passed = re.search(r"(\d+) passed", finished.stdout)
    assert passed and int(passed[1]) > at_least, finished.stdout[-500:]
