"""System checks: each finds its mistake, and nothing where there is none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger
from sqlalchemy import text

from reviewpoint_db import checks, logs
from reviewpoint_db.checks import Finding, check_at_start, refused, run_checks
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.migrations import Migrations
from tests.support.postgres import PostgresServer
from tests.support.relay import Relay


async def found(config: DatabaseConfig, **options: Any) -> dict[str, Finding]:
    async with Database(config) as database:
        return {finding.id: finding for finding in await run_checks(database, **options)}


def config_of(url: str, **settings: Any) -> DatabaseConfig:
    return DatabaseConfig(url=url, **{"environment": "dev", **settings})


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level="INFO", format="{level} {message}")
    logs.enable()
    yield lines
    logger.remove(sink)
    logs.disable()


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder of migration scripts with one revision."""
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").touch()
    (folder / "versions" / "one.py").write_text("revision = 'a1'\ndown_revision = None\n")
    return folder


async def test_a_good_set_up_has_no_findings(database_url: str) -> None:
    assert await found(config_of(database_url), migrations=Migrations()) == {}


async def test_rpdb001_no_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    findings = await found(DatabaseConfig(environment="dev"))
    assert findings["RPDB001"].level == "info"
    assert "REVIEWPOINT_DB_URL" in findings["RPDB001"].fix


def test_rpdb001_a_refused_configuration() -> None:
    with pytest.raises(ConfigurationError) as error:
        DatabaseConfig(url="mysql://ann:s3cret@host/db")
    finding = refused(error.value)
    assert (finding.id, finding.level) == ("RPDB001", "error")
    assert "asyncpg" in finding.fix
    assert "s3cret" not in str(finding)


def test_rpdb001_a_refusal_without_a_named_fix_is_shown_as_it_is() -> None:
    assert str(refused(ConfigurationError("Give it a name."))) == (
        "RPDB001 error: Give it a name. Fix: see the message."
    )


async def test_rpdb002_a_driver_that_cannot_be_imported(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        msg = f"undefined symbol in {name}"
        raise ImportError(msg)

    monkeypatch.setattr(checks, "importlib", SimpleNamespace(import_module=broken))
    (finding,) = (await found(config_of(sqlite_url), connect=False)).values()
    assert (finding.id, finding.level) == ("RPDB002", "error")
    assert "aiosqlite" in finding.fix


async def test_rpdb003_a_remote_database_without_an_environment() -> None:
    findings = await found(DatabaseConfig(url="postgresql://db.example/x"), connect=False)
    assert list(findings) == ["RPDB003"]
    assert "db.example" in findings["RPDB003"].message


async def test_rpdb003_is_silent_where_the_environment_is_set_or_plain(sqlite_url: str) -> None:
    prod = DatabaseConfig(url="postgresql://db.example/x", environment="prod")
    assert await found(prod, connect=False) == {}
    assert await found(DatabaseConfig(url=sqlite_url), connect=False) == {}


async def test_rpdb004_an_unreachable_database(own_postgres: PostgresServer, own_url: str) -> None:
    own_postgres.stop("immediate")
    findings = await found(config_of(own_url))
    assert list(findings) == ["RPDB004"]
    assert findings["RPDB004"].level == "error"
    assert "***" in findings["RPDB004"].message


async def test_rpdb005_more_connections_than_the_server_has(postgres_url: str) -> None:
    config = config_of(postgres_url, pool=PoolConfig(size=10, max_overflow=5))
    findings = await found(config, processes=100)
    assert list(findings) == ["RPDB005"]
    assert "100 processes x (pool.size 10 + pool.max_overflow 5) = 1500" in str(findings["RPDB005"])
    assert await found(config, processes=1) == {}


async def test_rpdb005_counts_what_others_have_on_the_server(
    own_postgres: PostgresServer, own_url: str
) -> None:
    limit = int(own_postgres.psql("show max_connections").strip())
    config = config_of(own_url, pool=PoolConfig(size=limit - 6, max_overflow=0))
    assert await found(config) == {}
    stranger = config_of(f"{own_url}?application_name=psql", name="stranger")
    async with Database(stranger) as other, contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            await stack.enter_async_context(other.engine.connect())
        findings = await found(config)
        assert "minus 3 reserved ones and 6 of others" in findings["RPDB005"].message


async def test_rpdb005_counts_another_application_of_the_same_name(
    own_postgres: PostgresServer, own_url: str
) -> None:
    """In a database of its own on the same server, as "default" is everybody's name."""
    limit = int(own_postgres.psql("show max_connections").strip())
    config = config_of(own_url, pool=PoolConfig(size=limit - 6, max_overflow=0))
    elsewhere = config_of(own_postgres.create_database("elsewhere"))
    for other_config, counted in ((elsewhere, True), (config_of(own_url), False)):
        async with Database(other_config) as other, contextlib.AsyncExitStack() as stack:
            for _ in range(6):
                await stack.enter_async_context(other.engine.connect())
            assert ("RPDB005" in await found(config)) == counted


async def test_rpdb005_takes_the_configured_number_of_processes(postgres_url: str) -> None:
    assert "RPDB005" in await found(config_of(postgres_url, expected_processes=1000))


async def test_rpdb005_a_server_that_stops_answering_is_a_finding(postgres_url: str) -> None:
    with Relay.to(postgres_url) as relay:
        config = config_of(relay.url(postgres_url), health_timeout=0.5)
        async with Database(config) as database:
            async with database.engine.connect():
                pass

            async def healthy_then_silent() -> Any:
                report = await Database.health(database)
                relay.blackhole()
                return report

            database.health = healthy_then_silent  # type: ignore[method-assign]
            (finding,) = await run_checks(database)
            assert (finding.id, finding.level) == ("RPDB005", "warning")
            relay.restore()


async def test_rpdb006_pending_migrations(database_url: str, scripts: Path) -> None:
    migrations = Migrations(script_location=str(scripts))
    config = config_of(database_url)
    findings = await found(config, migrations=migrations)
    assert "the database is at nothing" in findings["RPDB006"].message
    assert "are at a1" in findings["RPDB006"].message
    async with Database(config) as database, database.engine.begin() as connection:
        await connection.execute(text("create table alembic_versions (version_num text)"))
        await connection.execute(text("insert into alembic_versions values ('a1')"))
    assert await found(config, migrations=migrations) == {}


async def test_rpdb006_scripts_that_are_broken(sqlite_url: str, scripts: Path) -> None:
    (scripts / "versions" / "two.py").write_text("1/0")
    findings = await found(
        config_of(sqlite_url), migrations=Migrations(script_location=str(scripts))
    )
    assert "ZeroDivisionError" in findings["RPDB006"].message


def test_migrations_are_read_off_a_config_of_advanced_alchemys() -> None:
    alembic = SimpleNamespace(
        script_location=Path("db"), version_table_name="versions", version_table_schema="audit"
    )
    assert Migrations.of(SimpleNamespace(alembic_config=alembic)) == Migrations(
        script_location="db", version_table="versions", version_table_schema="audit"
    )


async def test_rpdb007_open_debug_routes_next_to_a_remote_database() -> None:
    config = DatabaseConfig(url="postgresql://db.example/x", environment="dev")
    assert list(await found(config, connect=False)) == ["RPDB007"]
    assert await found(config, connect=False, guarded=True) == {}


async def test_an_application_adds_its_own_checks(sqlite_url: str) -> None:
    stock = Finding(id="SHOP001", level="warning", message="No stock.", fix="Order some.")

    async def shop(database: Database) -> list[Finding]:
        assert database.name == "default"
        return [stock]

    async def broken(database: Database) -> list[Finding]:
        raise ZeroDivisionError

    async with Database(config_of(sqlite_url)) as database:
        database.add_system_check(shop)
        database.add_system_check(broken)
        mine, failed = await run_checks(database)
    assert mine is stock
    assert str(mine) == "SHOP001 warning: No stock. Fix: Order some."
    assert (failed.id, failed.level) == ("RPDB000", "error")
    assert "broken" in failed.message


async def test_a_start_logs_the_findings(
    log: list[str], own_postgres: PostgresServer, own_url: str
) -> None:
    own_postgres.stop("immediate")
    async with Database(config_of(own_url)) as database:
        log.clear()
        await asyncio.wait_for(check_at_start(database), 10)
    (line,) = [line for line in log if "RPDB004" in line]
    assert line.startswith("ERROR RPDB004 error: ")


async def test_in_tests_a_start_connects_to_nothing(postgres_url: str, log: list[str]) -> None:
    async with Database(config_of(postgres_url, environment="test")) as database:
        await check_at_start(database)
        assert database.activity.snapshot().opened == 0
    assert not [line for line in log if "RPDB" in line]


@pytest.mark.parametrize(
    ("processes", "fix"),
    [(12, "lower the pool to 8 connections a process"), (200, "put PgBouncer in between")],
)
async def test_rpdb005_on_paper_without_a_database(processes: int, fix: str) -> None:
    config = config_of("postgresql://ann@localhost:1/x", pool=PoolConfig(size=10, max_overflow=20))
    findings = await found(config, processes=processes, max_connections=100, connect=False)
    assert list(findings) == ["RPDB005"]
    assert f"= {processes * 30} connections, but the server has 97" in str(findings["RPDB005"])
    assert findings["RPDB005"].fix.startswith(fix)
    assert await found(config, processes=3, max_connections=100, connect=False) == {}


@pytest.mark.parametrize(("processes", "fits"), [(10, True), (11, False)])
async def test_rpdb005_counts_the_replicas_pools_and_who_watches_them(
    processes: int, fits: bool
) -> None:
    """Each replica has a pool like the primary's; a hot standby's max_connections is no smaller."""
    config = config_of(
        "postgresql://ann@localhost:1/x",
        read_url="postgresql://ann@one,two/x",
        pool=PoolConfig(size=4, max_overflow=4),
    )
    findings = await found(config, processes=processes, max_connections=100, connect=False)
    assert ("RPDB005" not in findings) == fits
    if not fits:
        assert str(findings["RPDB005"]).startswith(
            "RPDB005 warning: 11 processes x (pool.size 4 + pool.max_overflow 4 + 1 that watches the "
            "replicas) = 99 connections, and as many on each of 2 replicas, but the server has 97"
        )
        assert "lower the pool to 7 connections a process" in findings["RPDB005"].fix


async def test_rpdb005_on_paper_takes_no_word_of_the_server(postgres_url: str) -> None:
    assert await found(config_of(postgres_url), processes=1000, max_connections=20_000) == {}


async def test_rpdb005_behind_pgbouncer_is_pgbouncers_affair(postgres_url: str) -> None:
    config = config_of(postgres_url, pgbouncer=True)
    assert await found(config, processes=1000) == {}
    assert "RPDB005" in await found(config, processes=1000, max_connections=500, connect=False)
