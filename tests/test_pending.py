"""Pending migrations: seen by health checks, and asked for rarely."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from reviewpoint_db import pending as pending_module
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.endpoints.health import health, ready
from reviewpoint_db.pending import PendingMigrations
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
    database.activity.loop_late = (time.monotonic() - 3, 1.2345)
    report = await database.health()
    assert (report.status, report.cause) == ("degraded", "event_loop_late")
    assert report.checks[2].name == "event_loop"
    assert report.checks[2].detail == "was late by 1234 ms, 3 s ago"
    database.activity.loop_late = (time.monotonic() - 300, 1.0)
    assert (await database.health()).status == "healthy"
