"""The example's own tests, which show the testing kit, pass as a user runs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.commands import output_of

ROOT = Path(__file__).parents[2]
SUITE = "example_app/tests"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_examples_own_suite_passes(database_url: str, workers: str) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REVIEWPOINT", "DATABASE_URL", "PYTEST"))
    }
    printed = output_of(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", workers, SUITE],
        ROOT,
        {**environment, "REVIEWPOINT_DB_URL": database_url},
        timeout=120,
    )
    assert "6 passed" in printed
