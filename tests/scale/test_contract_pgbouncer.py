"""The contract's rows on PostgreSQL hold through PgBouncer in transaction mode too.

None is left out. One is adapted: after an application's end the server still has sessions with its
name, since PgBouncer keeps them for whoever comes next.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.contract.stack import ADAPTERS
from tests.support.server import ROOT


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_contract_holds_through_pgbouncer(adapter: str) -> None:
    """Each adapter with its share of the suite, in a pytest of its own."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    command = [sys.executable, "-m", "pytest", "tests/contract", "-q", "-p", "no:cacheprovider"]
    finished = subprocess.run(
        [*command, "-n", "2", "--dist", "worksteal", "-k", f"{adapter} and postgresql"],
        cwd=ROOT,
        env={**environment, "CONTRACT_THROUGH": "pgbouncer"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    passed = re.search(r"(\d+) passed", finished.stdout)
    assert passed and int(passed[1]) > 150, finished.stdout[-500:]
