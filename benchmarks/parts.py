"""The parts of a run, each of which makes rows of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from benchmarks.calls import EXCHANGES, calls
from benchmarks.checkout import checkouts
from benchmarks.contenders import SCHEMA
from benchmarks.http import Runs, Throughput
from benchmarks.overhead import overhead
from benchmarks.rows import COLUMNS, FROZEN, OURS, SHEDDING, THEIRS, UNOBSERVED, Row, Target, paired
from benchmarks.sandbox import CLONE, DIRECT, SANDBOX, sandbox
from benchmarks.shedding import PATIENCE, overload
from benchmarks.waits import waits
from benchmarks.wire import failures_after_restart, round_trips
from tests.support.postgres import PostgresServer

#: Those with a session, and the driver alone.
_ALL: Final = [name for name in COLUMNS if name not in {FROZEN, SHEDDING, UNOBSERVED}]
_QUICKLY: Final = [THEIRS, OURS]


@dataclass(frozen=True)
class Bench:
    """What the parts run on.

    Args:
        server: The PostgreSQL server, which may be restarted.
        url: Its database.
        quick: Whether it is to be short, and means nothing.
    """

    server: PostgresServer
    url: str
    quick: bool = False

    def names(self, *more: str) -> list[str]:
        return [*(_QUICKLY if self.quick else _ALL), *more]

    def throughput(self, seconds: float) -> Throughput:
        return Throughput(self.server, self.url, 0.2 if self.quick else seconds)

    def rounds(self, full: int) -> int:
        return 1 if self.quick else full


def wire(bench: Bench) -> list[Row]:
    """Count round trips."""
    bench.server.psql(SCHEMA, bench.url.rsplit("/", 1)[1])
    counted = round_trips(bench.url, bench.names())
    bounds = {
        "one SELECT, read session": 1,
        "one SELECT, session": 3,
        "SELECT + UPDATE + COMMIT": 4,
    }
    return [
        Row(
            f"round trips, {exchange}",
            {name: of[exchange] for name, of in counted.items()},
            counted[OURS][exchange],
            Target("<=", bound),
        )
        for exchange, bound in bounds.items()
    ]


def connections(bench: Bench) -> list[Row]:
    """Count the connections that a steady load opens."""
    bench.server.psql(SCHEMA, bench.url.rsplit("/", 1)[1])
    seconds = 0.5 if bench.quick else 4.0
    throughput = bench.throughput(seconds)
    opened: dict[str, float] = {
        name: throughput.opened_connections(name, seconds) for name in bench.names()
    }
    label = f"connections opened in {seconds:g} s, 16 clients on 5 + 10"
    return [Row(label, opened, opened[OURS], Target("<=", 15))]


def reads(bench: Bench) -> list[Row]:
    """Read over HTTP."""
    runs = bench.throughput(2.5).measure("GET", "/read", bench.names(FROZEN), bench.rounds(5))
    p99 = _medians(runs, "p99")
    return [
        Row(
            "HTTP reads/s, 16 clients on 5 + 10 (ratio to a-alchemy)",
            _medians(runs, "per_second"),
            _ratio(runs, "per_second", OURS, THEIRS),
            Target(">=", 1.7),
        ),
        Row(
            "p99 of these reads, ms (ratio with freeze_gc)",
            p99,
            p99[FROZEN] / p99[THEIRS],
            Target("<=", 0.4),
        ),
    ]


def inserts(bench: Bench) -> list[Row]:
    """Write over HTTP."""
    names = _QUICKLY if bench.quick else ["asyncpg's pool", "plain SQLAlchemy", THEIRS, OURS]
    runs = bench.throughput(2.5).measure("POST", "/insert", names, bench.rounds(5))
    return [
        Row(
            "HTTP INSERT + COMMIT per second (ratio)",
            _medians(runs, "per_second"),
            _ratio(runs, "per_second", OURS, THEIRS),
            Target(">=", 1.4),
        )
    ]


def observation(bench: Bench) -> list[Row]:
    """Read with observation and without."""
    runs = bench.throughput(2.0).measure("GET", "/read", [OURS, UNOBSERVED], bench.rounds(9))
    return [
        Row(
            "HTTP reads/s, observation on against off",
            _medians(runs, "per_second"),
            _ratio(runs, "per_second", OURS, UNOBSERVED),
            Target(">=", 0.95),
        )
    ]


def called(bench: Bench) -> list[Row]:
    """Count the Python calls that observation adds to a request."""
    bench.server.psql(SCHEMA, bench.url.rsplit("/", 1)[1])
    counted = calls(bench.url)
    totals = {
        label: {name: of[label].total() for name, of in counted.items()} for label in EXCHANGES
    }
    return [
        Row(f"Python calls, {label} (share)", {**of}, of[OURS] / of[UNOBSERVED])
        for label, of in totals.items()
    ]


def contention(bench: Bench) -> list[Row]:
    """Wait for a connection among many."""
    found = waits(bench.url, 0.5 if bench.quick else 3.0, bench.rounds(5))
    theirs = "plain SQLAlchemy"
    rows = []
    for loop, runs in found.items():
        rows += [
            Row(
                f"p99.9 wait, 300 clients on 5, {loop}, ms (ratio to SQLAlchemy)",
                _medians(runs, "p999"),
                _ratio(runs, "p999", OURS, theirs),
                Target("<=", 0.35),
            ),
            Row(
                f"their throughput per second, {loop} (ratio to SQLAlchemy)",
                _medians(runs, "per_second"),
                _ratio(runs, "per_second", OURS, theirs),
                Target(">=", 0.95),
            ),
        ]
    return rows


def restart(bench: Bench) -> list[Row]:
    """Ask on after the server was restarted."""
    bench.server.psql(SCHEMA, bench.url.rsplit("/", 1)[1])
    failed: dict[str, float] = {**failures_after_restart(bench.server, bench.url, bench.names())}
    label = "of 20 requests after a server restart fail"
    return [Row(label, failed, failed[OURS], Target("<=", 0))]


def added(bench: Bench) -> list[Row]:
    """Add up what a session costs that does nothing."""
    found = overhead(3 if bench.quick else 120)
    values = {
        what: {name: of[f"{what} a session"] for name, of in found.items()}
        for what in ("with", "without")
    }
    return [
        Row(
            "session injected, committed, closed: µs added (ratio)",
            values["with"],
            values["with"][OURS] / values["with"][THEIRS],
            Target("<=", 0.6),
        ),
        Row(
            "handler without a session: µs added",
            values["without"],
            values["without"][OURS],
            Target("<=", 2.5),
        ),
    ]


def checkout(bench: Bench) -> list[Row]:
    """Take a connection and give it back."""
    taken = checkouts(bench.url, 3 if bench.quick else 60)
    return [
        Row(
            "checkout and return, µs of CPU (ratio to SQLAlchemy)",
            {name: median(of) for name, of in taken.items()},
            paired(taken[OURS], taken["plain SQLAlchemy"]),
        )
    ]


def isolation(bench: Bench) -> list[Row]:
    """Isolate tests that write through HTTP, in each way that people do."""
    found = sandbox(bench.url, 20 if bench.quick else 1000)
    added = found[SANDBOX]["next"] - found[DIRECT]["next"]
    clone = found[CLONE]["isolation"]
    return [
        Row("tests: ms that the sandbox adds to a session", {OURS: added}, added, Target("<=", 3)),
        Row("tests: ms to make and drop a clone", {OURS: clone}, clone, Target("<=", 60)),
        *(
            Row(
                f"tests: a test with {way}, ms (ratio to the sandbox's)",
                {OURS: of["test"]},
                of["test"] / found[SANDBOX]["test"],
            )
            for way, of in found.items()
        ),
    ]


def shedding(bench: Bench) -> list[Row]:
    """Offer ten times what the pool can serve."""
    found = {
        name: overload(bench.url, times=10, seconds=0.3 if bench.quick else 10.0, target=target)
        for name, target in ((OURS, 0.0), (SHEDDING, 0.1))
    }
    return [
        Row(
            f"goodput at 10 x the capacity, answers within {PATIENCE:g} s (share of it)",
            {name: one.goodput for name, one in found.items()},
            found[SHEDDING].goodput,
            Target(">=", 0.9),
        ),
        Row(
            "a refusal at 10 x the capacity, median (ms)",
            {name: one.median * 1000 for name, one in found.items() if one.refused},
        ),
        Row(
            "the slowest refusal (ms)",
            {name: one.slowest * 1000 for name, one in found.items() if one.refused},
        ),
    ]


#: In the order of the table.
PARTS: Final[dict[str, Callable[[Bench], list[Row]]]] = {
    "wire": wire,
    "connections": connections,
    "reads": reads,
    "inserts": inserts,
    "contention": contention,
    "restart": restart,
    "added": added,
    "observation": observation,
    "calls": called,
    "checkout": checkout,
    "sandbox": isolation,
    "shedding": shedding,
}


def _medians(runs: dict[str, Runs], key: str) -> dict[str, float]:
    return {name: median(run[key] for run in of) for name, of in runs.items()}


def _ratio(runs: dict[str, Any], key: str, ours: str, theirs: str) -> float:
    return paired([run[key] for run in runs[ours]], [run[key] for run in runs[theirs]])
