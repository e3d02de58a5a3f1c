"""OpenTelemetry metrics of a database, by the semantic conventions for database clients.

Names, units, attributes and buckets: https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
(v1.44). Spans are those of `opentelemetry-instrumentation-sqlalchemy`, which knows our engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from reviewpoint_db.statements import operation_of

if TYPE_CHECKING:
    from reviewpoint_db.activity import Measure
    from reviewpoint_db.database import Database

__all__ = ["INSTRUMENTS", "instrument"]

_DURATION: Final = "db.client.operation.duration"
_ROWS: Final = "db.client.response.returned_rows"
#: All instruments, with their units.
INSTRUMENTS: Final = {
    _DURATION: "s",
    _ROWS: "{row}",
    "db.client.connection.create_time": "s",
    "db.client.connection.wait_time": "s",
    "db.client.connection.use_time": "s",
    "db.client.connection.timeouts": "{timeout}",
    "db.client.connection.count": "{connection}",
    "db.client.connection.max": "{connection}",
    "db.client.connection.idle.max": "{connection}",
    "db.client.connection.idle.min": "{connection}",
    "db.client.connection.pending_requests": "{request}",
}
#: The convention's buckets of durations, in seconds.
_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
#: The convention's buckets of rows.
_ROW_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
_TIMERS: Final[dict[Measure, str]] = {
    "creation": "db.client.connection.create_time",
    "wait": "db.client.connection.wait_time",
    "use": "db.client.connection.use_time",
}
_DEFAULT_PORT: Final = 5432
#: Characters of a SQLSTATE.
_SQLSTATE: Final = 5


def instrument(
    database: Database, meter_provider: MeterProvider | None = None
) -> Callable[[], None]:
    """Report a database's measurements to OpenTelemetry.

    Example:
        >>> stop_reporting = instrument(plugin.database)

    Args:
        database: Whose measurements.
        meter_provider: None takes the global one.

    Returns:
        A function that ends it.
    """
    reporter = _Reporter(database, meter_provider)
    unsubscribe = database.activity.feed(reporter.record)

    def end() -> None:
        reporter.ended = True
        unsubscribe()

    return end


class _Reporter:
    """The instruments of one database."""

    def __init__(self, database: Database, meter_provider: MeterProvider | None) -> None:
        self.ended = False
        self._database = database
        self._meter = get_meter("reviewpoint_db", meter_provider=meter_provider)
        self._pool = {"db.client.connection.pool.name": database.name}
        self._target = _target(database)
        self._histograms = {
            name: self._meter.create_histogram(
                name, INSTRUMENTS[name], explicit_bucket_boundaries_advisory=_BUCKETS
            )
            for name in (_DURATION, *_TIMERS.values())
        }
        self._rows = self._meter.create_histogram(
            _ROWS, INSTRUMENTS[_ROWS], explicit_bucket_boundaries_advisory=_ROW_BUCKETS
        )
        timeouts = "db.client.connection.timeouts"
        self._timeouts = self._meter.create_counter(timeouts, INSTRUMENTS[timeouts])
        self._observe("db.client.connection.count", self._count)
        self._observe("db.client.connection.max", self._limit)
        # Burst connections stay for a while after their return: all of them may be idle.
        self._observe("db.client.connection.idle.max", self._limit)
        self._observe("db.client.connection.idle.min", self._none_kept)
        self._observe("db.client.connection.pending_requests", self._pending)

    def _observe(self, name: str, read: Callable[[], Iterable[Observation]]) -> None:
        def look(_: CallbackOptions) -> Iterable[Observation]:
            return () if self.ended else read()

        self._meter.create_observable_up_down_counter(name, [look], INSTRUMENTS[name])

    def _count(self) -> Iterable[Observation]:
        gauges = self._database.gauges()
        for state, number in (("used", gauges.out), ("idle", gauges.idle)):
            yield Observation(number, {**self._pool, "db.client.connection.state": state})

    def _limit(self) -> Iterable[Observation]:
        pool, gauges = self._database.config.effective_pool, self._database.gauges()
        limit = gauges.limit if gauges.pools else pool.size + pool.max_overflow
        return [] if limit is None else [Observation(limit, self._pool)]

    def _none_kept(self) -> Iterable[Observation]:
        """Nothing is opened ahead of its use, and an old connection is closed without another."""
        return [Observation(0, self._pool)]

    def _pending(self) -> Iterable[Observation]:
        return [Observation(self._database.gauges().waiting, self._pool)]

    def record(self, measure: Measure, value: float, label: str, statement: str) -> None:
        """Report one measurement."""
        if measure in _TIMERS:
            self._histograms[_TIMERS[measure]].record(value, self._pool)
        elif measure == "timed_out":
            self._timeouts.add(1, self._pool)
        elif measure == "statement":
            self._record_operation(value, {"db.operation.name": operation_of(statement)})
        elif measure == "rows":
            operation = {"db.operation.name": operation_of(statement)}
            self._rows.record(int(value), {**self._target, **operation})
        elif measure == "statement_failed":
            failure = {"db.operation.name": operation_of(statement), "error.type": label}
            if len(label) == _SQLSTATE or label.startswith("SQLITE_"):  # else the error's class
                failure["db.response.status_code"] = label
            self._record_operation(value, failure)

    def _record_operation(self, seconds: float, more: dict[str, str]) -> None:
        self._histograms[_DURATION].record(seconds, {**self._target, **more})


def _target(database: Database) -> dict[str, str | int]:
    """The attributes that say which database it is."""
    url = database.config.sqlalchemy_url
    attributes: dict[str, str | int] = {"db.system.name": database.config.backend}
    if url.database:
        attributes["db.namespace"] = url.database
    if url.host:
        attributes["server.address"] = url.host
        if url.port not in (None, _DEFAULT_PORT):
            attributes["server.port"] = url.port
    return attributes
