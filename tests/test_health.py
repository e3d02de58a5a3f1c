"""A health check: what it finds out, and that it always ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from reviewpoint_db import health
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.context import describe_origin
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.health import HealthReport, check_health
from tests.support.default import sqlite_threads_end
from tests.support.postgres import PostgresServer, RemoteServer
from tests.support.relay import Relay

# The figures of a loaded machine: far below what an unbounded wait would take.
BOUND = 10.0


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Database]:
    async with Database(DatabaseConfig(url=url, environment="test", **settings)) as database:
        yield database


@asynccontextmanager
async def all_in_use(database: Database) -> AsyncIterator[None]:
    """Takes every connection that the pool may open."""
    pool = database.config.effective_pool
    async with AsyncExitStack() as stack:
        for _ in range(pool.size + pool.max_overflow):
            await stack.enter_async_context(database.engine.connect())
        yield


async def becomes(database: Database, status: str) -> HealthReport:
    """Checks until the status is this one."""
    async with asyncio.timeout(BOUND):
        while (report := await check_health(database)).status != status:
            await asyncio.sleep(0.01)
    return report


async def test_a_reachable_database_is_healthy(database_url: str) -> None:
    async with opened(database_url) as database:
        before = datetime.now(UTC)
        report = await check_health(database)
        assert (report.status, report.cause) == ("healthy", None)
        assert report.connected_in is not None
        assert report.latency is not None
        assert 0 < report.latency < BOUND
        assert before <= report.checked_at <= datetime.now(UTC)
        assert [(check.name, check.status) for check in report.checks] == [
            ("connection", "healthy"),
            ("pool", "healthy"),
        ]
        assert database.debug_info()["pool_checked_out"] == 0


async def test_a_check_uses_a_connection_that_the_pool_has(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        async with database.engine.connect():
            pass
        for _ in range(3):
            await check_health(database)
        snapshot = database.activity.snapshot()
        assert (snapshot.opened, snapshot.acquired) == (1, 4)


async def test_a_full_pool_is_not_told_as_a_dead_database(database_url: str) -> None:
    pool = PoolConfig(size=1, max_overflow=1)
    async with opened(database_url, pool=pool) as database, all_in_use(database):
        report = await check_health(database)
        assert report.status == "healthy"
        assert database.activity.snapshot().timed_out == 0
        # Its own connection was counted nowhere.
        assert database.debug_info()["pool_checked_out"] == 2


async def test_the_connection_beside_the_pool_is_closed(
    postgres: RemoteServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    pool = PoolConfig(size=1, max_overflow=0)
    async with opened(postgres_url, pool=pool) as database, all_in_use(database):
        await check_health(database)
        assert len(await asyncio.to_thread(postgres.sessions, name)) == 1


async def test_a_pool_that_is_full_for_long_is_degraded(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SATURATED_AFTER", 0.05)
    pool = PoolConfig(size=1, max_overflow=0)
    async with opened(postgres_url, pool=pool) as database:
        async with all_in_use(database):
            report = await becomes(database, "degraded")
            assert report.cause == "saturated"
            assert report.latency is not None
            assert report.checks[1].detail is not None
            assert "no free connection" in report.checks[1].detail
        assert (await check_health(database)).status == "healthy"


async def test_a_full_server_is_there_while_our_pool_holds_connections(
    own_postgres: PostgresServer,
) -> None:
    own_postgres.psql("create role plain login password 'plain'")
    own_postgres.create_database("crowded")
    own_postgres.psql("grant all on schema public to plain", "crowded")
    own_postgres.psql("alter role plain connection limit 1")
    url = own_postgres.url("crowded", user="plain", password="plain")
    try:
        pool = PoolConfig(size=1, max_overflow=0)
        async with opened(url, pool=pool) as database, all_in_use(database):
            report = await check_health(database)
            assert (report.status, report.cause) == ("degraded", "saturated")
            assert report.checks[0].code == "53300"
    finally:
        own_postgres.psql("drop owned by plain; drop role plain", "crowded")


async def test_a_refused_connection_is_unhealthy_at_once(
    own_postgres: PostgresServer, own_url: str
) -> None:
    async with opened(own_url) as database:
        own_postgres.stop("immediate")
        report = await check_health(database)
        assert (report.status, report.cause) == ("unhealthy", "unreachable")
        assert report.latency is None
        own_postgres.start()
        assert (await check_health(database)).status == "healthy"


async def test_a_frozen_server_is_unhealthy_within_the_deadline(
    own_postgres: PostgresServer, own_url: str
) -> None:
    async with opened(own_url, health_timeout=0.5) as database:
        async with database.engine.connect():
            pass
        assert (await check_health(database)).status == "healthy"
        own_postgres.freeze()
        started = time.monotonic()
        report = await check_health(database)
        assert time.monotonic() - started < BOUND
        assert report.cause == "unreachable"
        own_postgres.thaw()
        assert (await check_health(database)).status == "healthy"


async def test_a_server_that_accepts_and_says_nothing_is_unhealthy(postgres_url: str) -> None:
    with Relay.to(postgres_url) as relay:
        async with opened(relay.url(postgres_url), health_timeout=0.3) as database:
            relay.blackhole()
            report = await check_health(database)
            assert report.cause == "unreachable"
            relay.restore()


async def test_a_full_pool_at_a_silent_server_is_unreachable(postgres_url: str) -> None:
    pool = PoolConfig(size=1, max_overflow=0)
    with Relay.to(postgres_url) as relay:
        url = relay.url(postgres_url)
        async with (
            opened(url, pool=pool, health_timeout=0.3) as database,
            all_in_use(database),
        ):
            relay.delay(1.0)
            assert (await check_health(database)).cause == "unreachable"
            relay.delay(0.0)


async def test_a_connection_beside_the_pool_that_fails_its_ping_is_cut(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: object, driver: object, timeout: float) -> None:
        raise ConnectionResetError

    pool = PoolConfig(size=1, max_overflow=0)
    async with opened(postgres_url, pool=pool) as database, all_in_use(database):
        monkeypatch.setattr(type(database._probe._backend), "ping", fail)
        report = await check_health(database)
        assert report.cause == "unreachable"
        assert report.checks[0].detail is not None


async def test_those_who_ask_at_once_share_one_check(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        reports = await asyncio.gather(*(check_health(database) for _ in range(50)))
        assert len({id(report) for report in reports}) == 1


async def test_one_who_is_cancelled_leaves_the_check_to_the_others(sqlite_url: str) -> None:
    asked = asyncio.Event()
    go = asyncio.Event()

    async def slow() -> None:
        asked.set()
        await go.wait()

    async with opened(sqlite_url) as database:
        database.add_check("slow", slow)
        first = asyncio.create_task(check_health(database))
        await asked.wait()
        second = asyncio.create_task(check_health(database))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()
        assert (await second).status == "healthy"


async def test_a_cancelled_check_leaves_no_task_behind(sqlite_url: str) -> None:
    entered = asyncio.Event()
    left = asyncio.Event()

    async def slow() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with opened(sqlite_url) as database:
        database.add_check("slow", slow)
        asking = asyncio.create_task(check_health(database))
        await entered.wait()
        async with asyncio.timeout(BOUND):
            # The check as a whole, and the slow part of it; the rest is done.
            while len(others := asyncio.all_tasks() - {asyncio.current_task(), asking}) > 2:
                await asyncio.sleep(0.01)
        for task in others:  # as asyncio.run() does at its end
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(left.wait(), BOUND)


async def test_the_applications_own_checks_count(sqlite_url: str) -> None:
    async def passes() -> bool:
        return True

    async def says_nothing() -> None:
        return

    async def says_no() -> bool:
        return False

    async def raises() -> None:
        msg = "no luck"
        raise ValueError(msg)

    async with opened(sqlite_url) as database:
        database.add_check("cache", passes)
        database.add_check("mail", says_nothing)
        assert (await check_health(database)).status == "healthy"
        database.add_check("search", says_no)
        database.add_check("queue", raises)
        report = await check_health(database)
        assert (report.status, report.cause) == ("unhealthy", "check_failed")
        found = {check.name: check.status for check in report.checks[2:]}
        assert found == {
            "cache": "healthy",
            "mail": "healthy",
            "search": "unhealthy",
            "queue": "unhealthy",
        }


@pytest.mark.parametrize("name", ["connection", "event_loop", "migrations", "pool", "replicas"])
async def test_a_check_of_the_application_cannot_stand_in_for_ours(
    name: str, sqlite_url: str
) -> None:
    async def fine() -> bool:
        return True

    async with opened(sqlite_url) as database:
        with pytest.raises(ConfigurationError, match=f"name = '{name}'.*Fix: use another one"):
            database.add_check(name, fine)
        assert not database.checks


async def test_a_check_of_the_application_that_hangs_is_left_behind(sqlite_url: str) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    async with opened(sqlite_url, health_timeout=1.0) as database:
        database.add_check("stuck", hangs)
        report = await asyncio.wait_for(check_health(database), BOUND)
        assert report.cause == "check_failed"
        assert report.checks[2].detail == "no answer within 1 s"


async def test_a_check_of_the_application_that_is_cancelled_has_failed(sqlite_url: str) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    async with opened(sqlite_url) as database:
        database.add_check("gone", cancelled)
        assert (await check_health(database)).cause == "check_failed"


async def test_a_check_runs_for_itself_and_not_for_who_asked(sqlite_url: str) -> None:
    origins = []

    async def note() -> None:
        origins.append(str(describe_origin()))

    async with opened(sqlite_url) as database:
        database.add_check("note", note)
        async with database.session(origin="GET /papers"):
            await check_health(database)
    assert origins == ["health check"]


async def test_a_sqlite_writer_does_not_hold_a_check_back(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database, database.session() as session:
        await session.execute(text("create table t (a)"))
        assert (await check_health(database)).status == "healthy"


async def test_a_file_that_is_no_database_is_unhealthy(tmp_path: Any) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear reviewers, " * 100)
    async with sqlite_threads_end(), opened(f"sqlite:///{file}") as database:
        report = await check_health(database)
        assert report.cause == "unreachable"
        assert report.checks[0].code == "SQLITE_NOTADB"


async def test_a_pool_class_of_the_applications_is_checked_too(postgres_url: str) -> None:
    async with opened(postgres_url, engine_options={"poolclass": NullPool}) as database:
        assert (await check_health(database)).status == "healthy"


async def test_an_engine_that_cannot_be_made_is_unhealthy(sqlite_url: str) -> None:
    async with opened(sqlite_url, engine_options={"no_such_option": 1}) as database:
        report = await check_health(database)
        assert report.cause == "unreachable"
        assert {check.status for check in report.checks} == {"unhealthy"}


async def test_a_wrong_password_is_unhealthy_and_not_told(postgres: RemoteServer) -> None:
    url = postgres.url("postgres", password="s3cret-but-wrong")
    async with opened(url) as database:
        report = await check_health(database)
        assert report.cause == "unreachable"
        assert report.checks[0].code == "28P01"
        assert "s3cret" not in repr(report)
