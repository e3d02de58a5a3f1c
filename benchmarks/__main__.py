"""Runs everything side by side and says which targets are missed: `make bench`."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from loguru import logger

from benchmarks.chart import draw
from benchmarks.parts import PARTS, Bench
from benchmarks.rows import Row, table, write_json
from tests.support.run import Run

ROOT: Final = Path(__file__).parents[1]
_PACKAGES: Final = ("SQLAlchemy", "asyncpg", "advanced-alchemy", "litestar", "uvicorn", "uvloop")


def main(arguments: list[str] | None = None) -> int:
    """Run by arguments; returns the process's exit code.

    Args:
        arguments: Those of the command line, without the program.
    """
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it runs; means nothing")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], help="these parts")
    parser.add_argument("--json", type=Path, default=ROOT / "build/bench.json", help="where to")
    parser.add_argument("--chart", type=Path, default=ROOT / "docs/assets/performance.svg")
    options = parser.parse_args(arguments)
    # The applications' own lines would stand between the figures, and those of the tests' client.
    logger.remove()
    logging.disable(logging.INFO)
    machine = _machine()
    print(*(f"{name}: {value}" for name, value in machine.items()), sep="\n", flush=True)
    started = time.monotonic()
    rows = _run(options.only, quick=options.quick)
    print("", table(rows), "", sep="\n")
    missed = [row for row in rows if row.met is False]
    for row in missed:
        assert row.judged is not None
        print(f"MISSED: {row.measure}: {row.judged:.2f}, target {row.target}")
    judged = sum(row.met is not None for row in rows)
    print(f"{judged - len(missed)} of {judged} targets met, in {time.monotonic() - started:.0f} s")
    write_json(rows, machine, options.json)
    if not options.quick and len(options.only) == len(PARTS):
        draw(rows, options.chart)
    return 0


def _run(parts: list[str], *, quick: bool) -> list[Row]:
    rows: list[Row] = []
    run = Run.create()
    try:
        server = run.own_server()
        server.start()
        bench = Bench(server, server.create_database("bench"), quick)
        for part in parts:
            began = time.monotonic()
            rows += PARTS[part](bench)
            print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        server.remove()
    finally:
        run.close()
    return rows


def _machine() -> dict[str, Any]:
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")
    return {
        "machine": f"{os.cpu_count()} cores {model or platform.processor()}, {platform.system()}",
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
    }


if __name__ == "__main__":
    sys.exit(main())
