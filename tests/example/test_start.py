"""The example's start: tables, seed data, commands, workers, servers."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from example_app.app import create_app
from reviewpoint_db import DatabaseConfig, PoolConfig
from tests.example.serving import example, serving
from tests.support.asgi import client, running
from tests.support.commands import output_of
from tests.support.server import ROOT, AsgiServer

if TYPE_CHECKING:
    from pathlib import Path

    from example_app.tests.service import Service
    from tests.support.postgres import PostgresServer


def litestar(folder: Path, url: str, *arguments: str) -> str:
    """Run `litestar --app example_app.app:app ...` and return what it prints."""
    environment = os.environ | {"REVIEWPOINT_DB_URL": url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "litestar", "--app", "example_app.app:app", *arguments]
    return output_of(command, folder, environment)


def totals(url: str) -> tuple[int, int]:
    papers = httpx.get(f"{url}/papers", timeout=30).json()["total"]
    return papers, httpx.get(f"{url}/reviewers", timeout=30).json()["total"]


async def test_seed_data_is_written_once(service: Service, database_url: str) -> None:
    """An application that starts on a database with data in it leaves it as it is."""
    await service.join("Rita")
    await service.submit()
    async with serving(database_url) as again:
        assert (await again.http.get("/papers")).json()["total"] == 13
        assert (await again.http.get("/reviewers")).json()["total"] == 6


async def test_the_application_starts_again(database_url: str) -> None:
    app = example(database_url)
    for _ in range(2):
        async with running(app), client(app) as http:
            assert (await http.get("/papers")).json()["total"] == 12
            assert (await http.get("/db/health")).json()["status"] == "healthy"


async def test_it_starts_without_its_database_and_recovers(
    own_postgres: PostgresServer, own_url: str
) -> None:
    async with serving(own_url):
        pass  # the first start makes the tables
    own_postgres.stop()
    impatient = DatabaseConfig(url=own_url, environment="test", pool=PoolConfig(timeout=0.5))
    app = create_app(impatient)
    async with running(app), client(app) as http:
        refused = await http.get("/papers")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await http.get("/")).status_code == 503
        assert (await http.get("/db/health")).status_code == 503
        own_postgres.start()
        async with asyncio.timeout(20):  # whoever asks before the next probe gets another 503
            while (found := await http.get("/papers")).status_code == 503:
                await asyncio.sleep(0.05)
        assert found.json()["total"] == 12
        assert (await http.get("/db/health")).status_code == 200


def test_the_commands_migrate_and_find_nothing_left_to_do(
    tmp_path: Path, database_url: str
) -> None:
    litestar(tmp_path, database_url, "database", "upgrade", "--no-prompt")
    assert "0001" in litestar(tmp_path, database_url, "database", "show-current-revision")
    litestar(tmp_path, database_url, "database", "check")  # fails when a model has no migration
    litestar(tmp_path, database_url, "database", "downgrade", "base", "--no-prompt")
    with AsgiServer(
        "example_app.app:app", env={"REVIEWPOINT_DB_URL": database_url}, folder=tmp_path
    ) as server:
        assert totals(server.url) == (12, 5)


def test_migrations_can_be_written_as_sql(tmp_path: Path, postgres_url: str) -> None:
    """For a database whose tables only its administrator may change."""
    script = litestar(tmp_path, postgres_url, "database", "upgrade", "--sql", "--no-prompt")
    assert "CREATE TABLE paper" in script


def test_workers_that_start_at_once_migrate_and_seed_once(
    tmp_path: Path, database_url: str
) -> None:
    with AsgiServer(
        "example_app.app:app",
        env={"REVIEWPOINT_DB_URL": database_url},
        options=["--workers", "3"],
        folder=tmp_path,
    ) as server:
        assert {totals(server.url) for _ in range(6)} == {(12, 5)}
        assert "Traceback" not in server.log, server.log


@pytest.mark.parametrize("environment", [{}, {"REVIEWPOINT_ENVIRONMENT": "dev"}])
def test_it_runs_in_an_empty_folder_with_no_settings(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with AsgiServer("example_app.app:app", env=environment, folder=tmp_path) as server:
        assert httpx.get(f"{server.url}/db/health").json()["status"] == "healthy"
        assert "A commit that the client can believe" in httpx.get(server.url).text
        assert httpx.get(f"{server.url}/schema").status_code == 200
    assert (tmp_path / "reviewpoint.sqlite3").exists()
