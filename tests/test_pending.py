"""Pending migrations: seen by health checks, and asked for rarely."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.applications import Starlette

from reviewpoint_db import fastapi, starlette
from reviewpoint_db import pending as pending_module
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.endpoints.health import health, ready
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.migrations import Migrations
from reviewpoint_db.pending import PendingMigrations
from reviewpoint_db.snapshots import LoopLate
from tests.support.asgi import running
from tests.support.logs import logged

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


class Revisions:
    """Where a database is, and how often it was asked."""

    def __init__(self) -> None:
        self.current: set[str] = set()
        self.asked = 0
        self.error: Exception | None = None

    async def of(self, _: AsyncEngine) -> tuple[set[str], set[str]]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.current, {"b2"}


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    async with Database(DatabaseConfig(url=sqlite_url, environment="test")) as database:
        yield database


async def test_pending_migrations_degrade_and_stay_ready(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    revisions = Revisions()
    database.pending = PendingMigrations(revisions.of)
    report = await database.health()
    assert (report.status, report.cause) == ("degraded", "migrations_pending")
    assert report.checks[2].name == "migrations"
    assert report.checks[2].detail == "the database is at nothing, the migrations lead to b2"
    assert (await health(database)).status == 200
    assert (await ready(database)).status == 200
    assert revisions.asked == 1  # again only after a while
    reply = json.loads((await health(database, accept="application/health+json")).body)
    assert reply == {"status": "warn"}
    monkeypatch.setattr(pending_module, "_AGAIN", 0.0)
    database.pending = PendingMigrations(revisions.of)
    revisions.current = {"a1"}
    assert "at a1," in str((await database.health()).checks[2].detail)
    revisions.current = {"b2"}
    for _ in range(3):
        assert (await database.health()).status == "healthy"
    assert revisions.asked == 3  # and never after all were applied


async def test_what_cannot_be_asked_is_no_pending_migration(database: Database) -> None:
    revisions = Revisions()
    revisions.error = ValueError("secret")
    database.pending = PendingMigrations(revisions.of)
    with logged("DEBUG") as lines:
        report = await database.health()
    assert report.status == "healthy"
    assert any("Migrations could not be checked" in line for line in lines)
    assert "secret" not in "".join(lines)


async def test_a_late_event_loop_degrades_for_a_while(database: Database) -> None:
    database.activity.loop_late = LoopLate(time.monotonic() - 3, 1.2345, "block (app.py:7)")
    report = await database.health()
    assert (report.status, report.cause) == ("degraded", "event_loop_late")
    assert report.checks[2].name == "event_loop"
    assert report.checks[2].detail == "was late by 1234 ms, blocked by block (app.py:7), 3 s ago"
    database.activity.loop_late = LoopLate(time.monotonic() - 3, 1.2345)
    report = await database.health()
    assert report.checks[2].detail == "was late by 1234 ms, 3 s ago"
    database.activity.loop_late = LoopLate(time.monotonic() - 300, 1.0)
    assert (await database.health()).status == "healthy"


def starlette_app(config: DatabaseConfig, migrations: str | Migrations) -> Starlette:
    app = Starlette()
    starlette.setup_database(app, config, migrations=migrations)
    return app


def fastapi_app(config: DatabaseConfig, migrations: str | Migrations) -> FastAPI:
    app = FastAPI()
    fastapi.setup_database(app, config, migrations=migrations)
    return app


@pytest.fixture
def scripts(tmp_path: Path) -> str:
    """One migration, of nothing."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").touch()
    (tmp_path / "versions" / "one.py").write_text("revision = 'b2'\ndown_revision = None\n")
    return str(tmp_path)


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
async def test_an_application_that_names_its_migrations_is_told_what_is_pending(
    make: Callable[[DatabaseConfig, str | Migrations], Starlette], scripts: str, sqlite_url: str
) -> None:
    config = DatabaseConfig(url=sqlite_url)
    with logged("WARNING") as lines:
        app = make(config, Migrations(script_location=scripts, version_table="mine"))
        async with running(app):
            report = await app.state.databases["default"].health()
            assert (report.status, report.cause) == ("degraded", "migrations_pending")
            async with app.state.databases["default"].session() as session:
                await session.execute(text("create table alembic_versions (version_num text)"))
                await session.execute(text("insert into alembic_versions values ('b2')"))
                await session.commit()
    assert any("RPDB006" in line for line in lines)
    app = make(config, scripts)
    async with running(app):
        assert (await app.state.databases["default"].health()).status == "healthy"


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
def test_a_folder_without_migrations_is_refused(
    make: Callable[[DatabaseConfig, str], Starlette], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="no env"):
        make(DatabaseConfig(), str(tmp_path))
