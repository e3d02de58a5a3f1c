"""Metrics of a Litestar application: its route, and the registry of Litestar's own plugin."""

from __future__ import annotations

import json
from typing import Any

import pytest
from litestar import Litestar, get
from litestar.plugins.prometheus import PrometheusConfig, PrometheusController
from litestar.testing import AsyncTestClient
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from reviewpoint_db import DatabaseConfig, ReviewPointDBPlugin
from reviewpoint_db.litestar import SessionDep


@get("/answer")
async def answer(db_session: SessionDep) -> int:
    return int((await db_session.execute(text("select 42"))).scalar_one())


def application(url: str, **kwargs: Any) -> Litestar:
    plugin = ReviewPointDBPlugin(DatabaseConfig(url=url, environment="dev"))
    handlers = [answer, *kwargs.pop("route_handlers", [])]
    return Litestar(route_handlers=handlers, plugins=[plugin], openapi_config=None, **kwargs)


@pytest.fixture
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)


@pytest.mark.usefixtures("_one_process")
async def test_the_route_tells_the_metrics(database_url: str) -> None:
    async with AsyncTestClient(application(database_url)) as client:
        assert (await client.get("/answer")).text == "42"
        reply = await client.get("/db/metrics")
        assert reply.status_code == 200
        names = {family.name for family in text_string_to_metric_families(reply.text)}
        assert "reviewpoint_db_wait_seconds" in names
        assert 'handler="GET /answer' in reply.text


async def test_debug_has_routes_for_stacks_and_the_server(database_url: str) -> None:
    async with AsyncTestClient(application(database_url)) as client:
        assert (await client.get("/answer")).text == "42"
        stacks = await client.get("/db/debug/stacks")
        assert json.loads(stacks.text) == {"holders": [], "waiters": []}
        server = await client.get("/db/debug/server")
        assert server.status_code == 200
        assert server.json()["figures"]


@pytest.mark.usefixtures("_one_process")
async def test_the_registry_of_litestars_plugin_is_joined_while_the_application_runs(
    sqlite_url: str,
) -> None:
    app = application(
        sqlite_url,
        route_handlers=[PrometheusController],
        middleware=[PrometheusConfig().middleware],
    )
    async with AsyncTestClient(app) as client:
        told = (await client.get("/metrics")).text
        assert "reviewpoint_db_connections{" in told
        assert "litestar_requests_in_progress" in told
    families = {family.name for family in REGISTRY.collect()}
    assert not any(name.startswith("reviewpoint_db") for name in families)


@pytest.mark.usefixtures("_one_process")
async def test_without_litestars_plugin_no_registry_is_touched(sqlite_url: str) -> None:
    async with AsyncTestClient(application(sqlite_url)):
        families = {family.name for family in REGISTRY.collect()}
        assert not any(name.startswith("reviewpoint_db") for name in families)
