"""The benchmarks run, so that nobody finds them broken on the day they are needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.rows import Row, Target, table

ROOT = Path(__file__).parents[1]


def test_a_quick_run_measures_everything_and_counts_what_is_exact(tmp_path: Path) -> None:
    """Round trips, failures and answers are the same on any machine; timings are not asserted."""
    found = tmp_path / "bench.json"
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json", str(found)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    rows = {row["measure"]: row for row in json.loads(found.read_text())["rows"]}
    exact = [name for name in rows if name.startswith(("round trips", "connections", "of 20"))]
    assert len(exact) == 5
    assert all(rows[name]["met"] for name in exact), ran.stdout
    assert len(rows) == 28
    assert all(name in ran.stdout for name in rows)


def test_a_target_that_is_missed_is_named_as_missed() -> None:
    rows = [
        Row("pace", {"reviewpoint_db": 2.0}, 1.694, Target(">=", 1.7)),
        Row("wait", {"reviewpoint_db": 0.5}, 0.344, Target("<=", 0.35)),
        Row("none"),
    ]
    lines = table(rows).splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["MISSED", "met", ""]
