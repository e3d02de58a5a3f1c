"""The example's own tests, which show the testing kit, pass as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = "example_app/tests"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_examples_own_suite_passes(database_url: str, workers: str) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REVIEWPOINT", "DATABASE_URL", "PYTEST"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", workers, SUITE],
        cwd=ROOT,
        env={**environment, "REVIEWPOINT_DB_URL": database_url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
