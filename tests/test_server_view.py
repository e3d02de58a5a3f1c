"""The server's side, joined with who holds which connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.server_view import ServerView
from tests.support.pools import until
from tests.support.postgres import PostgresServer


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Database]:
    settings.setdefault("environment", "test")
    async with Database(DatabaseConfig(url=url, **settings)) as database:
        yield database


async def becomes_blocked(database: Database) -> ServerView:
    async with asyncio.timeout(10):
        while not (view := await database.look_at_server()).blockings:
            assert view.error is None
            await asyncio.sleep(0.01)
    return view


@asynccontextmanager
async def blocked(database: Database) -> AsyncIterator[None]:
    """One session has changed a row, or the file; another one waits for it."""
    async with database.session() as session:
        await session.execute(text("create table papers (id int primary key, title text)"))
        await session.execute(text("insert into papers values (7, 'a')"))
        await session.commit()

    async def review() -> None:
        async with database.session(origin="POST /reviews") as session:
            await session.execute(text("update papers set title = 'secret' where id = 7"))
            await session.rollback()

    mailed = asyncio.Event()
    patched = asyncio.Event()

    async def send_mail() -> None:
        patched.set()
        await mailed.wait()

    async def patch() -> None:
        async with database.session(origin="PATCH /papers/7") as session:
            await session.execute(text("update papers set title = 'b' where id = 7"))
            await send_mail()

    patching = asyncio.create_task(patch())
    await patched.wait()
    reviewing = asyncio.create_task(review())
    yield
    mailed.set()
    await patching
    await reviewing


async def test_who_waits_for_whom_can_be_read_off(database_url: str) -> None:
    async with opened(database_url) as database, blocked(database):
        view = await becomes_blocked(database)
        (blocking,) = view.blockings
        assert blocking.text.startswith(
            "POST /reviews waits for PATCH /papers/7, which is in "
            "blocked.<locals>.send_mail (tests/test_server_view.py:"
        )
        (waiting,) = [each for each in view.connections if each.blocked_by]
        assert waiting.waits_for is not None
        assert (waiting.pid, waiting.blocked_by) == (blocking.waiting_pid, (blocking.blocking_pid,))
        assert blocking.seconds is not None
        assert "secret" not in str(view)


async def test_the_look_goes_around_a_full_pool(database_url: str) -> None:
    pool = PoolConfig(size=2, max_overflow=0)
    async with opened(database_url, pool=pool) as database, blocked(database):
        view = await becomes_blocked(database)
        assert database.gauges().out == 2
        assert len(view.connections) == 2
        assert "look at the server" not in str(view)


async def test_postgresql_tells_version_limits_locks_and_states(postgres_url: str) -> None:
    async with opened(postgres_url) as database, blocked(database):
        view = await becomes_blocked(database)
        assert view.backend == "postgresql"
        assert view.figures["max_connections"] > 0
        assert view.figures["version"]
        waiting, holding = sorted(view.connections, key=lambda each: each.blocked_by == ())[:2]
        assert waiting.lock is not None
        assert waiting.lock.startswith("ShareLock on ")
        assert waiting.waits_for == "Lock: transactionid"
        assert waiting.statement == "update papers set title = ? where id = ?"
        assert holding.state == "idle in transaction"
        assert holding.transaction_for is not None
        assert all(each.own for each in view.connections)


async def test_somebody_elses_connection_is_named_when_it_blocks(
    own_postgres: PostgresServer, own_url: str
) -> None:
    other = f"{own_url}?application_name=psql"
    async with opened(own_url) as database, opened(other, name="other") as stranger:
        async with stranger.session() as session:
            await session.execute(text("create table papers (id int)"))
            await session.commit()
            await session.execute(text("lock papers"))

            async def read() -> None:
                async with database.session(origin="GET /papers") as reader:
                    await reader.execute(text("select * from papers"))

            reading = asyncio.create_task(read())
            view = await becomes_blocked(database)
            text_of = view.blockings[0].text
            assert text_of.startswith("GET /papers waits for psql (pid ")
            assert text_of.endswith("which is idle in transaction")
            (foreign,) = [each for each in view.connections if not each.own]
            assert foreign.application == "psql"
            await session.rollback()
            await reading
        await until(lambda: not database.gauges().out)
        # An application with a name of its own is found by it.
        assert (await stranger.look_at_server()).error is None


@pytest.mark.parametrize("worker", [None, "gw7"])
async def test_all_processes_of_the_application_are_found_by_their_name(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, worker: str | None
) -> None:
    if worker is None:
        monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    else:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    async with (
        opened(postgres_url) as database,
        opened(postgres_url) as sibling,
        sibling.engine.connect(),
    ):
        view = await database.look_at_server()
        (connection,) = view.connections
        assert connection.holder is None
        assert f"(pid {connection.pid})" in connection.name


async def test_sqlite_tells_its_file_and_pragmas(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database, database.session(origin="a job") as session:
        await session.execute(text("create table papers (id int)"))
        view = await database.look_at_server()
        assert view.backend == "sqlite"
        assert view.figures["journal_mode"] == "wal"
        assert view.figures["foreign_keys"] == 1
        assert view.figures["wal_size"] >= 0
        assert str(view.figures["file"]).endswith("test.sqlite3")
        (writing,) = view.connections
        assert (writing.name, writing.state) == ("a job", "idle in transaction")
        assert view.blockings == ()


async def test_a_database_in_memory_has_no_file_to_name() -> None:
    async with opened("sqlite:///:memory:") as database:
        assert (await database.look_at_server()).figures["file"] == ":memory:"


async def test_a_server_that_is_away_is_an_error_in_the_view(
    own_postgres: PostgresServer, own_url: str
) -> None:
    async with opened(own_url) as database:
        own_postgres.stop("immediate")
        view = await database.look_at_server()
        assert view.error is not None
        assert view.connections == ()
        own_postgres.start()


async def test_a_connection_beside_the_pool_that_fails_is_cut(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(driver: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr("reviewpoint_db.server_view.figures_of", fail)
    async with opened(postgres_url) as database:
        view = await database.look_at_server()
        assert view.error is not None
        assert view.error.startswith("ConnectionResetError")
