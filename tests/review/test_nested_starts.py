"""A job that starts the database of the application around it, in the same event loop."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from tests.support.notes import metadata


def started(database: Database) -> bool:
    return database.started


@pytest.fixture
def database(sqlite_url: str) -> Database:
    return Database(DatabaseConfig(url=sqlite_url))


async def test_the_end_of_an_inner_block_stops_nothing(database: Database) -> None:
    async with database:
        engine = database.engine
        async with database, database.session() as session:
            await session.execute(text("SELECT 1"))
        assert started(database)
        assert database.engine is engine
    assert not started(database)


async def test_a_block_inside_of_an_explicit_start_leaves_the_stop_to_it(
    database: Database,
) -> None:
    await database.start()
    async with database:
        pass
    assert started(database)
    await database.stop()
    assert not started(database)


async def test_the_last_of_overlapping_blocks_stops(database: Database) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def job() -> None:
        async with database:
            entered.set()
            await leave.wait()

    async with database:
        task = asyncio.create_task(job())
        await entered.wait()
    assert started(database)
    leave.set()
    await task
    assert not started(database)


async def test_a_stop_inside_of_blocks_is_the_last_word(database: Database) -> None:
    async with database, database:
        await database.stop()
        assert not started(database)
    async with database:
        assert started(database)
    assert not started(database)


async def test_a_start_that_failed_counts_for_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The next block starts the database, and stops it."""
    folder = tmp_path_factory.mktemp("later") / "missing"
    config = DatabaseConfig(url=f"sqlite:///{folder / 'test.sqlite3'}")
    database = Database(config, metadata=metadata, create_all=True)
    with pytest.raises(Exception, match=r"unable to open|CANTOPEN"):
        async with database:
            pass
    folder.mkdir()
    async with database:
        assert started(database)
    assert not started(database)
