"""The reference names all that there is: metrics, fields, warnings, settings; and nothing else."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import msgspec
import pytest
from litestar import Litestar
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from sqlalchemy import text

from reviewpoint_db import ReviewPointDBPlugin
from reviewpoint_db.activity import WarningKind
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.endpoints.debug import debug
from reviewpoint_db.endpoints.routes import ROUTES
from reviewpoint_db.gauges import PoolGauges
from reviewpoint_db.health import Cause, CheckResult, HealthReport
from reviewpoint_db.holder import HolderSnapshot, HolderState
from reviewpoint_db.metrics import METRICS, exposition
from reviewpoint_db.pool_config import ByEnvironment
from reviewpoint_db.server_rows import Blocking, ServerConnection
from reviewpoint_db.server_view import ServerView
from reviewpoint_db.slowest import SlowSnapshot
from reviewpoint_db.snapshots import CloseReason, Warned
from reviewpoint_db.stacks import Frame
from reviewpoint_db.telemetry import INSTRUMENTS

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
SUFFIXES = {
    "gauge": ("",),
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}
STRUCTS: tuple[type[msgspec.Struct], ...] = (
    HolderSnapshot,
    SlowSnapshot,
    Warned,
    PoolGauges,
    Frame,
    ServerView,
    ServerConnection,
    Blocking,
    HealthReport,
    CheckResult,
)


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def rows(name: str) -> dict[str, str]:
    """The lines of a page's tables, by the name in their first column."""
    return dict(re.findall(r"^\| `([^`]+)` \|(.*)$", page(name), re.MULTILINE))


def test_each_prometheus_metric_is_documented_with_kind_label_and_text() -> None:
    told = {name: row for name, row in rows("metrics.md").items() if name.startswith("review")}
    expected = {
        metric.full_name + "_total" * (metric.kind == "counter"): metric for metric in METRICS
    }
    assert set(told) == set(expected)
    for name, metric in expected.items():
        label = f"`{metric.label}`" if metric.label else ""
        assert told[name].split(" | ") == [f" {metric.kind}", label, f"{metric.text} |"], name


def test_each_instrument_is_documented_with_its_unit() -> None:
    told = {name: row for name, row in rows("metrics.md").items() if name.startswith("db.")}
    assert set(told) == set(INSTRUMENTS)
    for name, unit in INSTRUMENTS.items():
        assert told[name].startswith(f" `{unit}` |")


def test_each_warning_is_documented() -> None:
    assert set(rows("warnings.md")) == set(get_args(WarningKind))


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_each_field_is_documented(struct: type[msgspec.Struct]) -> None:
    told = re.findall(r"^\| `(\w+)` \| \S", page("debug.md"), re.MULTILINE)
    assert {field.name for field in msgspec.structs.fields(struct)} <= set(told)


def keys_of(answer: dict[str, Any]) -> set[str]:
    inner = ("pool", "totals", "timings", "warnings")
    return {*answer, *(key for name in inner for key in answer[name])}


async def test_each_key_of_the_debug_route_is_documented(sqlite_url: str) -> None:
    async with Database(DatabaseConfig(url=sqlite_url, environment="dev")) as database:
        answer = json.loads(debug(database).body)
    told = set(re.findall(r"`(\w+)`", page("debug.md")))
    assert keys_of(answer) <= told
    assert set(get_args(CloseReason)) <= told
    assert set(get_args(Cause)) <= told
    for state in get_args(HolderState):
        assert f"`{state}`" in page("debug.md")


@pytest.mark.parametrize("route", ["/debug", "/debug/stacks", "/debug/server", "/health"])
def test_the_routes_that_are_described_exist(route: str) -> None:
    assert f"## GET /db{route}\n" in page("debug.md")
    assert route in {own.path for own in ROUTES}


@pytest.mark.parametrize(
    ("struct", "prefix"),
    [(DatabaseConfig, "REVIEWPOINT_DB_"), (PoolConfig, "REVIEWPOINT_DB_POOL_")],
)
def test_each_setting_is_documented_with_its_default_and_its_variable(
    struct: type[msgspec.Struct], prefix: str
) -> None:
    told = rows("settings.md")
    for field in msgspec.structs.fields(struct):
        default = {} if field.default is msgspec.NODEFAULT else field.default
        shown = "by the environment" if isinstance(default, ByEnvironment) else f"`{default!r}`"
        assert told[field.name].startswith(f" {shown} |"), field.name
        if field.name not in ("environment", "pool", "session_class"):
            assert f"`{prefix}{field.name.upper()}`" in told[field.name]


def exposed() -> set[str]:
    return {metric.full_name + end for metric in METRICS for end in SUFFIXES[metric.kind]}


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_there_are() -> None:
    dashboard = json.loads(page("grafana.json"))
    asked = {target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    alerts = re.findall(r"^ +expr: (.*)$", page("alerts.yml"), re.MULTILINE)
    assert len(alerts) == page("alerts.yml").count("- alert:")
    named = {name for expr in (*asked, *alerts) for name in re.findall(r"reviewpoint_db_\w+", expr)}
    assert named <= exposed()
    # All of them can be seen; those that are left out are the ones that two others tell.
    families = {metric.full_name for metric in METRICS}
    unseen = {name for name in families if not any(each.startswith(name) for each in named)}
    assert unseen == {
        "reviewpoint_db_waits",
        "reviewpoint_db_waits_canceled",
        "reviewpoint_db_pings",
    }


def test_the_labels_in_the_dashboard_and_the_alerts_are_those_of_the_metrics() -> None:
    labels = {metric.label for metric in METRICS if metric.label} | {"database", "le", "instance"}
    for name in ("grafana.json", "alerts.yml"):
        for group in re.findall(r"by \(([^)]*)\)", page(name)):
            assert {label.strip() for label in group.split(",")} <= labels
    kinds = re.findall(r'kind="(\w+)"', page("alerts.yml"))
    assert set(kinds) <= set(get_args(WarningKind))


def test_what_an_alert_sees_increase_is_there_before_its_first_event(sqlite_url: str) -> None:
    """The first leak of a process is no increase of a series that begins with it."""
    body, _ = exposition(Database(DatabaseConfig(url=sqlite_url, environment="test")))
    asked = re.findall(r'increase\((\w+)\{(\w+="\w+")\}', page("alerts.yml"))
    assert len(asked) == page("alerts.yml").count("increase(") > 0
    for name, label in asked:
        assert f'{name}{{database="default",{label}}} 0.0\n' in body.decode(), (name, label)


def test_a_full_worker_beside_an_idle_one_is_an_alert() -> None:
    """Sums over the workers of an instance are below their limits then: only who waits is asked."""
    (rule,) = re.findall(
        r"- alert: DatabasePoolExhausted\n(.*?)annotations", page("alerts.yml"), re.DOTALL
    )
    (asked,) = re.findall(r"^ +expr: (.*)$", rule, re.MULTILINE)
    assert set(re.findall(r"reviewpoint_db_\w+", asked)) == {"reviewpoint_db_pending_requests"}
    assert "for: 1m\n" in rule


def test_the_lines_of_the_dashboard_show_what_happened_since_their_last_point() -> None:
    """`$__range` would draw the sum of the whole picture at each point."""
    for panel in json.loads(page("grafana.json"))["panels"]:
        for target in panel["targets"]:
            spans = set(re.findall(r"\[([^\]]+)\]", target["expr"]))
            assert spans <= {"$__rate_interval"}, panel["title"]


def test_the_panels_do_not_lie_on_each_other() -> None:
    panels = json.loads(page("grafana.json"))["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels) == len({panel["id"] for panel in panels})


async def test_the_code_of_the_metrics_page_runs(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another exporter than the page's, which is no dependency."""
    config = DatabaseConfig(url=sqlite_url, environment="test")
    told = io.StringIO()
    exporter: Any = ModuleType("metric_exporter")
    exporter.OTLPMetricExporter = partial(ConsoleMetricExporter, told)
    name = "opentelemetry.exporter.otlp.proto.http.metric_exporter"
    for parent in ("exporter", "exporter.otlp", "exporter.otlp.proto", "exporter.otlp.proto.http"):
        package = ModuleType(f"opentelemetry.{parent}")
        monkeypatch.setitem(sys.modules, f"opentelemetry.{parent}", package)
    monkeypatch.setitem(sys.modules, name, exporter)
    names: dict[str, Any] = {
        "plugin": SimpleNamespace(database=Database(config)),
        "Litestar": Litestar,
        "ReviewPointDBPlugin": partial(ReviewPointDBPlugin, config),
    }
    blocks = re.findall(r"```python\n(.*?)```", page("metrics.md"), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    try:
        names["stop_reporting"]()
        app = names["app"]
        async with app.lifespan(), app.state.databases["default"].session() as session:
            await session.execute(text("select 1"))
        assert f":{os.getpid()}" in told.getvalue()
        assert "db.client.operation.duration" in told.getvalue()
    finally:
        names["SQLAlchemyInstrumentor"]().uninstrument()
