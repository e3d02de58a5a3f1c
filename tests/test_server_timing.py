"""The Server-Timing header."""

from __future__ import annotations

import re
from typing import Any

import pytest
from litestar import Litestar, get
from litestar.testing import AsyncTestClient
from sqlalchemy import text

from reviewpoint_db import DatabaseConfig, ReviewPointDBPlugin
from reviewpoint_db.litestar import ReadSessionDep, SessionDep


@get("/two")
async def two(db_session: SessionDep, db_read_session: ReadSessionDep) -> str:
    await db_session.execute(text("select 'secret'"))
    await db_read_session.execute(text("select 2"))
    return "two"


@get("/one")
async def one(db_session: SessionDep) -> str:
    await db_session.execute(text("select 1"))
    return "one"


@get("/none")
async def none(db_session: SessionDep) -> str:
    return type(db_session).__name__


def client(url: str, environment: Any, **settings: Any) -> AsyncTestClient[Litestar]:
    config = DatabaseConfig(url=url, environment=environment)
    plugin = ReviewPointDBPlugin(config, **settings)
    app = Litestar(route_handlers=[one, two, none], plugins=[plugin], openapi_config=None)
    return AsyncTestClient(app)


@pytest.mark.parametrize("commit", ["manual", "autocommit"])
async def test_in_dev_a_response_tells_its_time_in_the_database(
    database_url: str, commit: str
) -> None:
    async with client(database_url, "dev", commit=commit) as browser:
        header = (await browser.get("/two")).headers["server-timing"]
        pattern = (
            r'db;dur=\d+\.\d;desc="2 statements", '
            r'db-wait;dur=\d+\.\d;desc="waiting for a connection"'
        )
        assert re.fullmatch(pattern, header)
        assert '"1 statement"' in (await browser.get("/one")).headers["server-timing"]
        assert "server-timing" not in (await browser.get("/none")).headers


@pytest.mark.parametrize("environment", ["test", "prod"])
async def test_elsewhere_nothing_is_told(sqlite_url: str, environment: str) -> None:
    async with client(sqlite_url, environment) as browser:
        assert "server-timing" not in (await browser.get("/one")).headers
