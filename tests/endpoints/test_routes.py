"""Who is let in, by every adapter, to every route of the table."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from litestar import Litestar
from starlette.applications import Starlette

from reviewpoint_db import DatabaseConfig, ReviewPointDBPlugin, fastapi, starlette
from reviewpoint_db.endpoints.routes import ROUTES
from tests.support.asgi import client, running

GUARDED = [route.path for route in ROUTES if route.guarded]
TOKEN = "a-long-random-text"


def application(kind: str, url: str, environment: Any, token: str | None) -> Any:
    config = DatabaseConfig(url=url, environment=environment)
    if kind == "litestar":
        plugin = ReviewPointDBPlugin(config, debug_token=token)
        return Litestar(plugins=[plugin], openapi_config=None)
    if kind == "starlette":
        app = Starlette()
        starlette.setup_database(app, config, debug_token=token)
        return app
    api = FastAPI()
    fastapi.setup_database(api, config, debug_token=token)
    return api


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


async def status(browser: httpx.AsyncClient, path: str, authorization: str | None) -> int:
    headers = {"authorization": authorization} if authorization else {}
    return (await browser.get(f"/db{path}", headers=headers)).status_code


@pytest.mark.parametrize("kind", ["litestar", "starlette", "fastapi"])
async def test_in_prod_health_tells_why_to_who_shows_the_token(kind: str, sqlite_url: str) -> None:
    short = {"status": "healthy", "service": "database"}
    app = application(kind, sqlite_url, "prod", TOKEN)
    async with running(app), client(app) as browser:
        for wrong in ({}, {"authorization": "Bearer other"}, {"authorization": basic("")}):
            answer = await browser.get("/db/health", headers=wrong)
            assert (answer.status_code, answer.json()) == (200, short)
        for right in (f"Bearer {TOKEN}", basic(TOKEN)):
            answer = await browser.get("/db/health", headers={"authorization": right})
            checks = answer.json()["checks"]
            assert [check["name"] for check in checks] == ["connection", "pool"]
            assert answer.headers["vary"] == "accept, authorization"
    app = application(kind, sqlite_url, "prod", None)
    async with running(app), client(app) as browser:
        answer = await browser.get("/db/health", headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.json() == short


@pytest.mark.parametrize("kind", ["litestar", "starlette", "fastapi"])
async def test_in_prod_guarded_routes_are_there_for_the_token_alone(
    kind: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    assert {"/debug", "/debug/stacks", "/debug/server", "/metrics"} <= set(GUARDED)
    app = application(kind, sqlite_url, "prod", None)
    async with running(app), client(app) as browser:
        for path in GUARDED:
            assert await status(browser, path, None) == 404, path
    app = application(kind, sqlite_url, "prod", TOKEN)
    async with running(app), client(app) as browser:
        for path in GUARDED:
            for wrong in (None, f"Bearer {TOKEN[:-1]}", "Bearer other", basic(""), basic("x")):
                refused = await browser.get(
                    f"/db{path}", headers={"authorization": wrong} if wrong else {}
                )
                assert refused.status_code == 401, path
                assert refused.headers["cache-control"] == "no-store"
                assert "sqlite" not in refused.text
            assert await status(browser, path, f"Bearer {TOKEN}") == 200, path
            assert await status(browser, path, basic(TOKEN)) == 200, path


@pytest.mark.parametrize("kind", ["litestar", "starlette", "fastapi"])
async def test_in_dev_all_routes_are_open_and_answer(
    kind: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    app = application(kind, database_url, "dev", None)
    async with running(app), client(app) as browser:
        for route in ROUTES:
            assert await status(browser, route.path, None) == 200, route.path
