"""Database: start and stop, sessions for blocks, tables, and what it tells of itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Column, MetaData, Table, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.types import UserDefinedType

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.context import describe_origin
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ConfigurationError
from tests.support.logs import logged
from tests.support.notes import held, metadata, notes, stored, write
from tests.support.pools import until
from tests.support.relay import Relay

if TYPE_CHECKING:
    from tests.support.postgres import PostgresServer


def _database(url: str, **settings: object) -> Database:
    config = DatabaseConfig(url=url, **settings)  # type: ignore[arg-type]
    return Database(config, metadata=metadata, create_all=True)


async def test_it_starts_stops_and_starts_again(database_url: str) -> None:
    database = _database(database_url)
    events: list[str] = []
    database.activity.subscribe(lambda event, _: events.append(event))
    for _ in range(2):
        with logged() as lines:
            async with database:
                await database.start()  # once more is nothing
                started = database.started
                async with database.session() as session:
                    await session.execute(select(notes))
            assert (started, database.started) == (True, False)
            assert database.existing_engine is None
        assert len([line for line in lines if "'default' started" in line]) == 1
        assert len([line for line in lines if "'default' stopped" in line]) == 1
    assert events == ["db.started", "db.stopped"] * 2


class _Unknown(UserDefinedType[str]):
    """A column's type that no database has."""

    def get_col_spec(self, **_: object) -> str:
        return "unheard_of"


async def test_a_start_that_fails_leaves_nothing_open(postgres_url: str) -> None:
    wrong = MetaData()
    Table("wrong", wrong, Column("id", _Unknown()))
    config = DatabaseConfig(url=postgres_url, environment="test")
    database = Database(config, metadata=wrong, create_all=True)
    with pytest.raises(ProgrammingError):
        async with database:
            raise AssertionError
    assert not database.started
    assert database.existing_engine is None
    assert database.activity.closed == {"disposed": 1}


async def test_a_stop_without_a_start_is_nothing(sqlite_url: str) -> None:
    with logged() as lines:
        await _database(sqlite_url).stop()
    assert lines == []


def test_its_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEWPOINT_DB_URL", "postgresql://ann:secret@127.0.0.1/papers")
    database = Database()
    assert database.name == "default"
    assert "secret" not in repr(database)
    assert "127.0.0.1" in repr(database)
    assert database.existing_engine is None


async def _fail_inside(database: Database) -> None:
    async with database.session() as session:
        await write(session, "lost too")
        raise KeyError


def test_a_block_without_a_commit_is_rolled_back_whatever_happens(database_url: str) -> None:
    async def main() -> None:
        async with _database(database_url) as database:
            async with database.session(origin="job") as session:
                assert str(describe_origin()) == "job"
                await write(session, "lost")
            assert describe_origin() is None
            with pytest.raises(KeyError):
                await _fail_inside(database)
            async with database.read_session(origin="reader"):
                assert str(describe_origin()) == "reader"
            assert await stored(database) == []
            assert held(database) == 0

    asyncio.run(main())


async def test_a_cancelled_block_is_rolled_back(database_url: str) -> None:
    async with _database(database_url) as database:
        inside = asyncio.Event()

        async def work() -> None:
            async with database.session() as session:
                await write(session, "lost")
                inside.set()
                await asyncio.sleep(30)

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert held(database) == 0
        assert await stored(database) == []


async def test_in_memory_it_is_empty_again_after_a_stop() -> None:
    database = _database("sqlite:///:memory:")
    for _ in range(2):
        async with database:
            async with database.session() as session:
                await write(session, "note")
                await session.commit()
            assert await stored(database) == ["note"]


def test_tables_are_created_where_that_is_allowed() -> None:
    with pytest.raises(ConfigurationError, match="metadata="):
        Database(DatabaseConfig(url="sqlite:///:memory:"), create_all=True)
    with pytest.raises(ConfigurationError, match="refused in prod"):
        Database(
            DatabaseConfig(url="sqlite:///x.sqlite3", environment="prod"),
            metadata=MetaData(),
            create_all=True,
        )


async def test_tables_are_created_once_the_database_is_there(
    own_postgres: PostgresServer, own_url: str
) -> None:
    own_postgres.stop("immediate")
    with logged() as lines:
        async with _database(own_url, connect_timeout=1, pool=PoolConfig(timeout=0.1)) as database:
            assert [line for line in lines if "Tables are created once" in line]
            await asyncio.to_thread(own_postgres.start)
            async with asyncio.timeout(10):
                while database._tasks:
                    await asyncio.sleep(0.02)
            assert await stored(database) == []


@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE", "AUTOCOMMIT"])
async def test_processes_that_start_together_create_the_tables_one_by_one(
    postgres_url: str, level: str
) -> None:
    """As the workers of one server do; each has an engine of its own, of any isolation level."""
    options = {"isolation_level": level}
    databases = [_database(postgres_url, engine_options=options) for _ in range(6)]
    await asyncio.gather(*(database.start() for database in databases))
    assert await stored(databases[0]) == []
    await asyncio.gather(*(database.stop() for database in databases))


async def test_a_creation_of_tables_that_fails_later_is_logged(
    own_postgres: PostgresServer, own_url: str
) -> None:
    wrong = MetaData()
    Table("wrong", wrong, Column("id", _Unknown()))
    config = DatabaseConfig(
        url=own_url, environment="test", connect_timeout=1, pool=PoolConfig(timeout=0.1)
    )
    own_postgres.stop("immediate")
    with logged("ERROR") as lines:
        async with Database(config, metadata=wrong, create_all=True) as database:
            await asyncio.to_thread(own_postgres.start)
            await until(lambda: not database._tasks)
    assert len(lines) == 1
    assert "Could not create the missing tables" in lines[0]
    assert "unheard_of" in lines[0]


async def test_a_stop_gives_the_creation_of_tables_up() -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    async with _database(url, pool=PoolConfig(timeout=0.1)) as database:
        assert database._tasks
    assert not database._tasks


async def test_draining_waits_for_what_is_in_use_and_names_it(database_url: str) -> None:
    async with _database(database_url) as database:
        assert await database.drain()
        assert database.draining
        async with database.session(origin="job") as session:
            await session.execute(select(notes))
            with logged() as lines:
                assert not await database.drain(timeout=0.05)
            assert [line for line in lines if "still in use: job" in line]


async def test_health_and_debug_info_tell_of_it(database_url: str) -> None:
    async with _database(database_url) as database:
        database.add_check("mine", _good)
        assert list(database.checks) == ["mine"]
        assert (await database.health()).status == "healthy"
        assert database.debug_info()["pool_checked_out"] == 0


async def _good() -> bool:
    return True


async def test_a_stop_against_a_silent_server_ends_in_time(postgres_url: str) -> None:
    with Relay.to(postgres_url) as relay:
        database = Database(DatabaseConfig(url=relay.url(postgres_url), query_timeout=1))
        await database.start()
        async with database.session() as session:
            await session.execute(text("select 1"))
        relay.blackhole()
        async with asyncio.timeout(10):
            await database.stop()
        relay.restore()


def test_a_stop_in_another_loop_closes_what_a_loop_left_open(postgres_url: str) -> None:
    database = Database(DatabaseConfig(url=postgres_url))

    async def ask() -> None:
        async with database.session() as session:
            await session.execute(text("select 1"))

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(ask(), loop).result(10)
    assert database.engine is not None
    asyncio.run(database.stop())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
    assert database.existing_engine is None


def test_in_memory_all_loops_see_the_same_tables() -> None:
    database = _database("sqlite:///:memory:")

    async def first() -> None:
        await database.start()
        async with database.session() as session:
            await write(session, "note")
            await session.commit()

    with asyncio.Runner() as one, asyncio.Runner() as other:
        one.run(first())
        other.run(database.start())
        assert other.run(stored(database)) == ["note"]
        other.run(database.stop())
        one.run(database.stop())


async def test_a_task_that_does_not_end_holds_up_no_stop(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reviewpoint_db.database.CLOSE_TIMEOUT", 0.1)
    let_go = asyncio.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    database = Database(DatabaseConfig(url=sqlite_url))
    await database.start()
    task = asyncio.create_task(stubborn())
    database._tasks.add(task)
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(10):
            await database.stop()
        assert not task.done()
    finally:
        let_go.set()
        await task
