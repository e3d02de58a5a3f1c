"""Prometheus metrics of a database, by `prometheus_client`.

One process is read when somebody asks (`collector`); where several share a folder
(`PROMETHEUS_MULTIPROC_DIR`) every single measurement is written to instruments in it (`write_through`),
since custom collectors do not work there. Both have the names of `METRICS`.

A new metric, in this order:

1. What happens is a `Measure` of `activity.py`: a method of `Activity` counts it and passes it on by
   `_tell()`, and `ActivitySnapshot` (`snapshots.py`) has the total. A value that can be read at any
   moment, as the pool's gauges can, needs neither.
2. `METRICS` has its name, kind, text and second label.
3. `_figures` has its value, for one process.
4. `_COUNTERS`, `_TIMERS`, `_MOVES` or `_SETTINGS` leads the measure to it, for several processes. A
   gauge that one process sets for all also needs a mode in `_WORST`, and `write_through` takes the
   process out of it at the end.
5. `docs/reference/metrics.md` has a row with the same kind, label and text, and
   `docs/reference/grafana.json` a panel: `tests/docs/test_reference.py` compares them. It becomes an
   instrument of OpenTelemetry only where the semantic conventions have one (`telemetry.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from reviewpoint_db.histogram import BUCKETS, HistogramSnapshot
from reviewpoint_db.metrics_folder import forget_the_dead
from reviewpoint_db.snapshots import CloseReason, WarningKind

if TYPE_CHECKING:
    from prometheus_client.registry import Collector, CollectorRegistry

    from reviewpoint_db.activity import Measure
    from reviewpoint_db.database import Database

__all__ = [
    "METRICS",
    "Metric",
    "collector",
    "exposition",
    "is_multiprocess",
    "reporting",
    "write_through",
]


class Metric(NamedTuple):
    """One metric; all of them bear the label `database` too.

    Args:
        name: Without the prefix `reviewpoint_db_`, the unit's suffix included.
        kind: What it is to Prometheus.
        text: What it tells.
        label: The name of its second label.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram", "summary"]
    text: str
    label: str | None = None

    @property
    def full_name(self) -> str:
        """The name as it is exposed; counters have `_total` after it."""
        return f"reviewpoint_db_{self.name}"


METRICS: Final = (
    Metric("connections", "gauge", "Open connections, by what they do.", "state"),
    Metric("connections_max", "gauge", "Connections that the pools may open."),
    Metric("pending_requests", "gauge", "Tasks that wait for a connection."),
    Metric("up", "gauge", "Whether the database can be reached, as far as is known: 1 or 0."),
    Metric("waits", "counter", "Checkouts that found no idle connection."),
    Metric("waits_canceled", "counter", "Checkouts that were cancelled while they waited."),
    Metric("timeouts", "counter", "Checkouts whose deadline passed."),
    Metric(
        "connect_failures",
        "counter",
        "Connects that failed, and health checks that found the database unreachable.",
    ),
    Metric("connections_closed", "counter", "Connections that were closed, by reason.", "reason"),
    Metric("pings", "counter", "Checkouts that verified their connection by a round trip."),
    Metric("statement_errors", "counter", "Statements that failed, by error code.", "code"),
    Metric("warnings", "counter", "Warnings that were logged, by kind.", "kind"),
    Metric("replica_up", "gauge", "Whether reads go to a replica: 1 or 0.", "replica"),
    Metric("replica_lag_seconds", "gauge", "By how much a replica is behind at most.", "replica"),
    Metric("wait_seconds", "histogram", "From asking for a connection to having it."),
    Metric("use_seconds", "histogram", "From taking a connection to returning it."),
    Metric("create_seconds", "histogram", "Of opening a connection."),
    Metric("statement_seconds", "histogram", "Of executing a statement."),
    Metric(
        "session_seconds",
        "summary",
        "From a session's first statement to its end, by handler.",
        "handler",
    ),
)
_BY_NAME: Final = {metric.name: metric for metric in METRICS}

#: Every second of our buckets: what a percentile in a chart needs.
_BOUNDS: Final = tuple(BUCKETS[1::2])

#: What a measurement adds to: the metric's name.
_COUNTERS: Final[dict[Measure, str]] = {
    "queued": "waits",
    "canceled": "waits_canceled",
    "timed_out": "timeouts",
    "connect_failed": "connect_failures",
    "closed": "connections_closed",
    "ping": "pings",
    "statement_failed": "statement_errors",
    "warning": "warnings",
}
_TIMERS: Final[dict[Measure, str]] = {
    "wait": "wait_seconds",
    "use": "use_seconds",
    "creation": "create_seconds",
    "statement": "statement_seconds",
    "session": "session_seconds",
}
#: What a measurement changes in the gauges.
_MOVES: Final[dict[Measure, dict[str, int]]] = {
    "creation": {"idle": 1},
    "wait": {"idle": -1, "used": 1},
    "use": {"used": -1, "idle": 1},
    "closed": {"idle": -1},
}


#: What a measurement sets, and what of several processes' values is told: the worst.
_SETTINGS: Final[dict[Measure, str]] = {
    "up": "up",
    "replica_up": "replica_up",
    "replica_lag": "replica_lag_seconds",
}
_WORST: Final = {"replica_up": "livemin", "replica_lag_seconds": "livemax", "up": "livemin"}

#: What a metric's label may be, as far as that is known: each is told from the start, since a counter
#: that appears with its first event has not increased, as Prometheus sees it.
_KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "connections": ("used", "idle"),
    "pending_requests": ("",),
    "connections_closed": get_args(CloseReason),
    "warnings": get_args(WarningKind),
}


def is_multiprocess() -> bool:
    """Whether the processes of this application write their metrics into one folder."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


def exposition(database: Database) -> tuple[bytes, str]:
    """Return the metrics as Prometheus reads them, and their media type.

    Args:
        database: Whose metrics; with several processes, all that is in their common folder.

    Raises:
        ImportError: `prometheus_client` is not installed.
    """
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    if is_multiprocess():
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(collector(database))
    return generate_latest(registry), CONTENT_TYPE_LATEST


@contextmanager
def reporting(
    databases: Sequence[Database], registry: Callable[[], CollectorRegistry] | None = None
) -> Iterator[None]:
    """Report what databases do for as long as an application runs.

    Several processes write into their common folder; one process is read by the routes, and needs
    nothing but to join the application's own registry, where it has one.

    Args:
        databases: All of the application.
        registry: Returns the application's.
    """
    with ExitStack() as stack:
        if is_multiprocess():
            forget_the_dead(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
            for database in databases:
                stack.callback(write_through(database))
        elif registry is not None:
            joined, own = collector(*databases), registry()
            own.register(joined)
            stack.callback(own.unregister, joined)
        yield


def collector(*databases: Database) -> Collector:
    """Return a custom collector, which reads the databases' figures when it is asked.

    Example:
        >>> from prometheus_client import REGISTRY
        >>> REGISTRY.register(collector(database))
    """
    from prometheus_client.registry import Collector

    class DatabaseCollector(Collector):
        def collect(self) -> Iterator[Any]:
            return _families(databases)

    return DatabaseCollector()


def _families(databases: Sequence[Database]) -> Iterator[Any]:
    from prometheus_client import core

    makers = {
        "gauge": core.GaugeMetricFamily,
        "counter": core.CounterMetricFamily,
        "histogram": core.HistogramMetricFamily,
        "summary": core.SummaryMetricFamily,
    }
    figures = {database.name: _figures(database) for database in databases}
    for metric in METRICS:
        labels = ["database", *([metric.label] if metric.label else [])]
        family: Any = makers[metric.kind](metric.full_name, metric.text, labels=labels)
        for database, of_database in figures.items():
            for label, value in of_database[metric.name].items():
                shown = [database, *([label] if metric.label else [])]
                if metric.kind == "histogram":
                    family.add_metric(shown, *_cumulated(value))
                elif metric.kind == "summary":
                    family.add_metric(shown, value.count, value.total)
                else:
                    family.add_metric(shown, value)
        yield family


def _figures(database: Database) -> dict[str, dict[str, Any]]:
    """Return the values of all metrics, by name and second label."""
    snapshot, gauges = database.activity.snapshot(), database.gauges()
    pool = database.config.effective_pool
    replicas = database.replicas.states() if database.replicas is not None else ()
    limit: float = pool.size + pool.max_overflow  # while nothing has made a pool yet
    if gauges.pools:
        limit = float("inf") if gauges.limit is None else gauges.limit
    return {
        "connections": {"used": gauges.out, "idle": gauges.idle},
        "connections_max": {"": limit},
        "pending_requests": {"": gauges.waiting},
        "up": {"": int(database.activity.reachability.failure is None)},
        "waits": {"": snapshot.waited},
        "waits_canceled": {"": snapshot.canceled},
        "timeouts": {"": snapshot.timed_out},
        "connect_failures": {"": snapshot.connection_failures},
        "connections_closed": dict.fromkeys(_KNOWN["connections_closed"], 0) | snapshot.closed,
        "pings": {"": snapshot.pings},
        "statement_errors": snapshot.statement_errors,
        "warnings": dict.fromkeys(_KNOWN["warnings"], 0) | snapshot.warnings,
        "replica_up": {one.host: int(one.state == "reading") for one in replicas},
        "replica_lag_seconds": {one.host: one.lag for one in replicas if one.lag is not None},
        "wait_seconds": {"": snapshot.wait},
        "use_seconds": {"": snapshot.use},
        "create_seconds": {"": snapshot.creation},
        "statement_seconds": {"": snapshot.statements},
        "session_seconds": snapshot.sessions,
    }


def _cumulated(histogram: HistogramSnapshot) -> tuple[list[tuple[str, float]], float]:
    """Return the buckets as Prometheus wants them: each with all that is in the smaller ones."""
    buckets: list[tuple[str, float]] = []
    seen = 0
    for bound, hits in zip((*BUCKETS, float("inf")), histogram.buckets, strict=True):
        seen += hits
        if bound in _BOUNDS:
            buckets.append((str(bound), seen))
    return [*buckets, ("+Inf", seen)], histogram.total


def _begin(instrument: Callable[[str, str], Any]) -> None:
    """Have what is known beforehand there; the other gauges are set once their values are known."""
    for metric in METRICS:
        unlabelled = ("",) if metric.label is None and metric.kind != "gauge" else ()
        for label in _KNOWN.get(metric.name, unlabelled):
            begun = instrument(metric.name, label)
            if metric.kind == "gauge":  # a process of the same id may have left another value
                begun.set(0)


def write_through(database: Database) -> Callable[[], None]:
    """Write each measurement to instruments in the folder that the processes share.

    Args:
        database: Whose measurements.

    Returns:
        A function that ends it, and takes this process out of what all are.
    """
    import prometheus_client as client

    kinds: dict[str, Any] = {
        "counter": client.Counter,
        "summary": client.Summary,
        "histogram": partial(client.Histogram, buckets=_BOUNDS),
        "gauge": client.Gauge,
    }

    def made(metric: Metric) -> Any:
        labels = ["database", *([metric.label] if metric.label else [])]
        mode = {"multiprocess_mode": _WORST.get(metric.name, "livesum")}
        more = mode if metric.kind == "gauge" else {}
        return kinds[metric.kind](metric.full_name, metric.text, labels, registry=None, **more)

    instruments = {metric.name: made(metric) for metric in METRICS}
    replicas = [] if database.replicas is None else [one.name for one in database.replicas.hosts]

    def instrument(name: str, label: str) -> Any:
        labels = (database.name, *([label] if _BY_NAME[name].label else []))
        return instruments[name].labels(*labels)

    def write(measure: Measure, value: float, label: str, _statement: str) -> None:
        if measure in _COUNTERS:
            instrument(_COUNTERS[measure], label).inc()
        if measure in _TIMERS:
            instrument(_TIMERS[measure], label).observe(value)
        if measure == "waiting":
            instrument("pending_requests", "").inc(value)
        if measure in _SETTINGS:
            instrument(_SETTINGS[measure], label).set(value)
        for state, number in _MOVES.get(measure, {}).items():
            instrument("connections", state).inc(number)

    _begin(instrument)
    pool = database.config.effective_pool
    limit = (pool.size + pool.max_overflow) * (1 + len(replicas))
    instrument("connections_max", "").set(limit)
    instrument("up", "").set(int(database.activity.reachability.failure is None))
    unsubscribe = database.activity.feed(write)

    def end() -> None:
        unsubscribe()
        for name, label in (
            ("connections", "used"),
            ("connections", "idle"),
            ("connections_max", ""),
            ("pending_requests", ""),
        ):
            instrument(name, label).set(0)
        instrument("up", "").set(1)
        for name in replicas:  # what changes the worst of the others' least
            instrument("replica_up", name).set(1)
            instrument("replica_lag_seconds", name).set(0)

    return end
