"""The example's own tests, which show the testing kit, pass as a user runs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.commands import output_of
from tests.testing.conftest import OPTIONS

ROOT = Path(__file__).parents[2]
SUITE = "example_app/tests"


@pytest.mark.parametrize(("kind", "workers"), [("sqlite", "0"), ("postgres", "2")])
def test_the_examples_own_suite_passes(
    request: pytest.FixtureRequest, kind: str, workers: str
) -> None:
    database_url = request.getfixturevalue(f"{kind}_url")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REVIEWPOINT", "DATABASE_URL", "PYTEST"))
    }
    printed = output_of(
        [sys.executable, "-m", "pytest", *OPTIONS, "-n", workers, SUITE],
        ROOT,
        {**environment, "REVIEWPOINT_DB_URL": database_url},
        timeout=120,
    )
    assert "46 passed" in printed
