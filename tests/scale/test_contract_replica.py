"""The contract's rows on PostgreSQL hold for a primary with a replica too.

None is left out. Adapted are: the row that reads after it has written, which waits until the standby has
replayed that and is what read sessions use; reads while the primary is away, which are answered (the
standby is not behind the relay); and what exhausts the primary's pool, which is not read sessions.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.server import ROOT


@pytest.mark.parametrize(
    "kinds",
    ["litestar-manual", "litestar-autocommit", "starlette-autocommit", "fastapi-manual"],
)
def test_the_contract_holds_with_a_replica(kinds: str) -> None:
    """One adapter in both modes, the others in one; each in a pytest of its own."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    command = [sys.executable, "-m", "pytest", "tests/contract", "-q", "-p", "no:cacheprovider"]
    finished = subprocess.run(
        [*command, "-n", "2", "--dist", "worksteal", "-k", f"{kinds}-postgresql"],
        cwd=ROOT,
        env={**environment, "CONTRACT_THROUGH": "replica"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    passed = re.search(r"(\d+) passed", finished.stdout)
    assert passed and int(passed[1]) > 75, finished.stdout[-500:]
