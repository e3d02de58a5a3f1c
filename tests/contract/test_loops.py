"""Two threads, each with a loop, use one application: right answers, and no crash."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.contract.apps import tables
from tests.contract.stack import ADAPTERS, LEFT_BEHIND, Adapter
from tests.support.server import ROOT

if TYPE_CHECKING:
    from tests.support.postgres import RemoteServer


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_two_threads_with_a_loop_each_work_eight_times(
    adapter: Adapter, postgres: RemoteServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres.psql(tables.POSTGRESQL, name)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "REVIEWPOINT_", "DATABASE_URL"))
    }
    environment |= {
        "CONTRACT_URL": postgres_url,
        "CONTRACT_COMMIT": "autocommit",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    result = subprocess.run(
        [sys.executable, "-m", "tests.contract.loops", adapter, "8"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-5000:]
    assert result.stdout.endswith("done\n")
    assert not [text for text in LEFT_BEHIND if text in result.stderr], result.stderr[-5000:]
    # Not even the connections of loops that were closed without a word are left.
    assert not postgres.sessions(name)
