"""What is known of statements and of those who hold connections, on real databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import bindparam, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from reviewpoint_db import observe
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.pooled import holder_of
from tests.support.logs import logged
from tests.support.pools import until


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Database]:
    settings.setdefault("environment", "test")
    async with Database(DatabaseConfig(url=url, **settings)) as database:
        yield database


async def test_a_holder_tells_its_statement_state_and_backend(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        async with database.session(origin="a job") as session:
            pid = await session.scalar(text("select pg_backend_pid()"))
            (holder,) = database.activity.holders(stacks=True)
            assert (holder.origin, holder.handler, holder.pid) == ("a job", "a job", pid)
            assert (holder.state, holder.in_transaction) == ("idle in transaction", True)
            assert holder.statement == "select pg_backend_pid()"
            assert holder.statements == 1
            assert holder.number == 1
            assert holder.where is not None
            assert holder.where.startswith("test_a_holder_tells")
            assert holder.held >= holder.state_for
        async with database.engine.connect() as connection:
            raw = await connection.get_raw_connection()
            assert raw.driver_connection is not None
            assert database.activity.holders()[0].state == "idle"


async def test_a_connection_that_is_lost_or_closed_has_no_holder(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database, database.engine.connect() as connection:
        assert connection.sync_connection is not None
        assert holder_of(connection.sync_connection) is not None
        await connection.invalidate()
        assert holder_of(connection.sync_connection) is None


async def test_a_statement_that_runs_is_active(postgres_url: str) -> None:
    async with opened(postgres_url) as database, database.session() as session:
        running = asyncio.create_task(session.execute(text("select pg_sleep(0.2)")))
        await until(lambda: any(each.state == "active" for each in database.activity.holders()))
        (holder,) = database.activity.holders(stacks=True)
        assert holder.statement == "select pg_sleep(?)"
        assert holder.stack
        await running
        assert database.activity.holders()[0].state == "idle in transaction"


async def test_a_commit_that_waits_is_active_and_then_over(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database, database.engine.connect() as connection:
        await connection.execute(text("select 1"))
        await connection.commit()
        (holder,) = database.activity.holders()
        assert (holder.statement, holder.state) == ("COMMIT", "idle")
        await connection.execute(text("select 1"))
        await connection.rollback()
        assert database.activity.holders()[0].statement == "ROLLBACK"


async def test_statements_and_sessions_are_timed_by_shape_and_handler(database_url: str) -> None:
    query = select(text("1")).where(
        text("1 in :many").bindparams(bindparam("many", expanding=True))
    )
    async with opened(database_url) as database:
        for many in ([1], [1, 2], [1, 2, 3]):
            async with database.session(origin="a job") as session:
                await session.execute(query, {"many": many})
        async with database.read_session() as reader:
            await reader.execute(text("select 'secret'"))
            await reader.execute(text("select 'secret'"))
        async with database.session():
            pass  # never used
        snapshot = database.activity.snapshot()
        shapes = {each.name: each for each in snapshot.slowest_statements}
        (of_many,) = [each for name, each in shapes.items() if "in (...)" in name]
        assert of_many.count == 3
        assert of_many.origin == "a job"
        assert shapes["select ?"].count == 2
        assert "secret" not in str(snapshot)
        assert snapshot.sessions["a job"].count == 3
        assert snapshot.sessions["unknown"].count == 1
        assert {each.name for each in snapshot.slowest_sessions} == {"a job", "unknown"}
        assert snapshot.statements.count >= 5


async def test_a_savepoint_belongs_to_the_work_of_its_session(database_url: str) -> None:
    async with opened(database_url) as database, database.session() as session:
        await session.execute(text("select 1"))
        async with session.begin_nested():
            await session.execute(text("select 2"))
        (holder,) = database.activity.held()
        assert holder.work is not None
        assert holder.work.waited == holder.waited


async def test_a_failed_statement_is_counted_by_its_code(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        async with database.session() as session:
            with pytest.raises(DBAPIError):
                await session.execute(text("select * from nowhere"))
            assert database.activity.holders()[0].state == "idle in transaction"
        assert database.activity.snapshot().statement_errors == {"42P01": 1}


async def test_a_failure_before_any_statement_is_no_failed_statement(
    postgres_url: str,
) -> None:
    async with opened(postgres_url) as database:
        async with database.session() as session:
            await session.execute(text("create table parents (id int primary key)"))
            await session.execute(
                text(
                    "create table children (id int references parents"
                    " deferrable initially deferred)"
                )
            )
            await session.commit()
            await session.execute(text("insert into children values (1)"))
            with pytest.raises(DBAPIError):
                await session.commit()
        assert database.activity.snapshot().statement_errors == {"23503": 1}  # of COMMIT


async def test_a_slow_statement_is_named_once_an_episode(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(sqlite_url, slow_statement=0) as database:
        with logged("WARNING") as lines:
            for _ in range(3):
                async with database.read_session(origin="a job") as session:
                    await session.execute(text("select 'secret', 2"))
        (line,) = lines
        assert line.startswith("WARNING|a job executed a statement for ")
        assert line.endswith("select ?, ?\n")
        (warned,) = database.activity.snapshot().recent_warnings
        assert (warned.kind, warned.origin) == ("slow_statement", "a job")
        monkeypatch.setattr(observe, "_REMEMBERED", 1)
        async with database.read_session() as session:
            await session.execute(text("select 3, 4, a.* from (select 1) a"))
        assert database.activity.snapshot().warnings == {"slow_statement": 2}


async def test_one_statement_many_times_in_one_session_is_named_in_dev(database_url: str) -> None:
    async with opened(database_url, environment="dev") as database:
        with logged("WARNING") as lines:
            async with database.session(origin="GET /papers list_papers") as session:
                for number in range(25):
                    await session.execute(text("select :n"), {"n": str(number)})
        (line,) = lines
        assert "GET /papers list_papers executed one statement 10 times in one session" in line
        with logged("WARNING") as lines:
            for number in range(25):
                async with database.session() as session:
                    await session.execute(text("select :n"), {"n": str(number)})
        assert lines == []


async def test_in_prod_nobody_counts_statements(sqlite_url: str) -> None:
    async with opened(sqlite_url, environment="prod") as database:
        with logged("WARNING") as lines:
            async with database.session() as session:
                for _ in range(25):
                    await session.execute(text("select 1"))
        assert lines == []


async def test_the_count_of_shapes_is_bounded(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "_SHAPES", 2)
    async with opened(sqlite_url, environment="dev") as database, database.session() as session:
        for number in range(6):
            await session.execute(text(f"select {number}"))
        work = database.activity.held()[0].work
        assert work is not None
        assert work.shapes is not None
        assert len(work.shapes) == 2
        assert work.statements == 6


async def test_without_observation_holders_are_known_and_statements_are_not(
    sqlite_url: str,
) -> None:
    async with opened(sqlite_url, observe=False) as database:
        async with database.session(origin="a job") as session:
            await session.execute(text("select 1"))
            (holder,) = database.activity.holders()
            assert (holder.origin, holder.statement) == ("a job", None)
        assert database.activity.snapshot().statements.count == 0


async def test_connections_of_another_pool_are_left_alone(sqlite_url: str) -> None:
    options = {"poolclass": NullPool}
    async with opened(sqlite_url, engine_options=options) as database:
        async with database.session() as session:
            await session.execute(text("select 1"))
            with pytest.raises(DBAPIError):
                await session.execute(text("select * from nowhere"))
        snapshot = database.activity.snapshot()
        assert (snapshot.statements.count, snapshot.statement_errors) == (0, {})
        assert snapshot.sessions == {}
        assert database.gauges().pools == 0


async def test_waiters_are_named_and_the_gauges_tell_how_many(database_url: str) -> None:
    pool = PoolConfig(size=1, max_overflow=0)
    async with opened(database_url, pool=pool) as database:

        async def wait() -> None:
            async with database.session(origin="the second") as session:
                await session.execute(text("select 1"))

        async with database.session(origin="the first") as session:
            await session.execute(text("select 1"))
            waiting = asyncio.create_task(wait())
            await until(database.activity.waiters)
            (waiter,) = database.activity.waiters(stacks=True)
            assert (waiter.origin, waiter.state, waiter.pid) == ("the second", "waiting", None)
            assert waiter.where is not None
            gauges = database.gauges()
            assert (gauges.pools, gauges.size, gauges.limit) == (1, 1, 1)
            assert (gauges.open, gauges.out, gauges.idle, gauges.waiting) == (1, 1, 0, 1)
            assert gauges.full_for > 0
            assert gauges.outage is None
        await waiting
        snapshot = database.activity.snapshot()
        assert snapshot.waiters == ()
        assert 0 < snapshot.waited_total <= snapshot.wait.total
        assert snapshot.waited == 2


async def test_a_pool_without_a_limit_has_none(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database, database.engine.connect():
        pool: Any = database.engine.pool
        pool._slots.limit = float("inf")
        assert database.gauges().limit is None
