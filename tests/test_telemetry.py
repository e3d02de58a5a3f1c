"""OpenTelemetry metrics, read by the SDK's in-memory reader."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import PoolTimeoutError
from reviewpoint_db.telemetry import INSTRUMENTS, _target, instrument
from tests.support.pools import until


def read(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def good_target(config: DatabaseConfig) -> dict[str, Any]:
    return dict(_target(Database(config)))


async def test_the_conventions_instruments_are_reported_until_the_end(postgres_url: str) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    pool = PoolConfig(size=1, max_overflow=0)
    config = DatabaseConfig(url=postgres_url, environment="test", name="papers", pool=pool)
    async with Database(config) as database:
        stop = instrument(database, provider)
        async with database.session() as session:
            await session.execute(text("select 1"))
            elastic: Any = database.engine.pool
            elastic._timeout = 0.2  # only now, since connecting may take longer
            waiting = asyncio.create_task(database.engine.connect().start())
            await until(lambda: database.gauges().waiting)
            points = read(reader)
            (pending,) = points["db.client.connection.pending_requests"]
            assert pending.value == 1
            assert pending.attributes == {"db.client.connection.pool.name": "papers"}
            with pytest.raises(PoolTimeoutError):
                await waiting
            with pytest.raises(DBAPIError):
                await session.execute(text("select * from nowhere"))
        points = read(reader)
        assert set(points) == set(INSTRUMENTS)
        states = {
            point.attributes["db.client.connection.state"]: point.value
            for point in points["db.client.connection.count"]
        }
        assert states == {"used": 0, "idle": 1}
        assert points["db.client.connection.max"][0].value == 1
        assert points["db.client.connection.idle.min"][0].value == 0
        (rows,) = points["db.client.response.returned_rows"]
        assert (rows.sum, rows.explicit_bounds[-1]) == (1, 10000)
        assert rows.attributes == good_target(config) | {"db.operation.name": "SELECT"}
        assert points["db.client.connection.timeouts"][0].value == 1
        assert points["db.client.connection.use_time"][0].count == 1
        assert points["db.client.connection.create_time"][0].explicit_bounds[0] == 0.001
        good, bad = sorted(
            points["db.client.operation.duration"],
            key=lambda point: "error.type" in point.attributes,
        )
        assert good.attributes["db.operation.name"] == "SELECT"
        assert good.attributes["db.system.name"] == "postgresql"
        assert good.attributes["server.address"] == "127.0.0.1"
        assert good.attributes["server.port"] == config.sqlalchemy_url.port
        assert bad.attributes["db.operation.name"] == "SELECT"
        assert bad.attributes["error.type"] == bad.attributes["db.response.status_code"] == "42P01"
        stop()
        async with database.session() as session:
            await session.execute(text("select 1"))
        later = read(reader)
        assert "db.client.connection.count" not in later
        assert later["db.client.operation.duration"][0].count == 1
    provider.shutdown()


async def test_spans_of_the_existing_instrumentation_have_our_statements_and_no_values(
    postgres_url: str,
) -> None:
    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    async with Database(DatabaseConfig(url=postgres_url, environment="test")) as database:
        instrumentor = SQLAlchemyInstrumentor()
        instrumentor.instrument(
            engine=database.engine.sync_engine, tracer_provider=tracers, skip_dep_check=True
        )
        try:
            async with database.session() as session:
                await session.execute(text("select cast(:word as text)"), {"word": "secret"})
            async with database.read_session() as session:
                await session.execute(text("select 42"))
                with pytest.raises(DBAPIError):
                    await session.execute(text("select 1 / cast(:none as int)"), {"none": 0})
        finally:
            instrumentor.uninstrument()
    spans = exporter.get_finished_spans()
    statements = [dict(span.attributes or {}).get("db.statement") for span in spans]
    assert {"select 42", "select cast($1 as text)"} <= {str(each) for each in statements}, (
        statements
    )
    assert "secret" not in "".join(span.to_json() for span in spans)
    assert [span.status.is_ok for span in spans].count(False) == 1
    assert database.activity.snapshot().statements.count >= 2


def test_an_error_without_a_code_is_named_by_its_class_and_has_no_status() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    database = Database(DatabaseConfig(url="sqlite:///a.sqlite3", environment="test"))
    instrument(database, provider)
    database.activity.statement_failed("TimeoutError", 0.1, "insert into papers values (1)")
    (point,) = read(reader)["db.client.operation.duration"]
    assert point.attributes["error.type"] == "TimeoutError"
    assert point.attributes["db.operation.name"] == "INSERT"
    assert "db.response.status_code" not in point.attributes
    provider.shutdown()


def test_units_are_those_of_the_conventions() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    database = Database(DatabaseConfig(url="sqlite:///a.sqlite3", environment="test"))
    database.activity.connection_opened(0.1)
    instrument(database, provider)
    database.activity.connection_opened(0.1)
    data = reader.get_metrics_data()
    assert data is not None
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        assert metric.unit == INSTRUMENTS[metric.name]
    provider.shutdown()


@pytest.mark.parametrize(
    ("url", "attributes"),
    [
        ("sqlite:///a.sqlite3", {"db.system.name": "sqlite", "db.namespace": "a.sqlite3"}),
        (
            "postgresql://user:secret@db/papers",
            {
                "db.system.name": "postgresql",
                "db.namespace": "papers",
                "server.address": "db",
            },
        ),
        ("postgresql:///", {"db.system.name": "postgresql"}),
    ],
)
def test_the_attributes_name_the_database_without_secrets(
    url: str, attributes: dict[str, str]
) -> None:
    assert _target(Database(DatabaseConfig(url=url, environment="test"))) == attributes
