"""A database that several event loops run at once: each stop returns what is its loop's."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import MetaData, text

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from tests.support.loops import loop_in_a_thread


async def ask(database: Database) -> Any:
    async with database.session() as session:
        return await session.scalar(text("select 1"))


def test_the_last_stop_is_the_databases(database_url: str) -> None:
    database = Database(DatabaseConfig(url=database_url))
    events: list[str] = []
    database.activity.subscribe(lambda event, data: events.append(event))
    with loop_in_a_thread() as first, loop_in_a_thread() as second:
        for run in (first, second):
            run(database.start())
            assert run(ask(database)) == 1
        first(database.stop())
        assert (database.started, database.draining, events) == (True, False, ["db.started"])
        assert second(ask(database)) == 1
        # Nothing of the second loop was touched, so it needed one engine only.
        assert database.activity.snapshot().engines_created == 2
        second(database.stop())
        assert not database.started
        assert events == ["db.started", "db.stopped"]


def test_a_stop_does_not_wait_for_the_sessions_of_other_loops(database_url: str) -> None:
    database = Database(DatabaseConfig(url=database_url))
    with loop_in_a_thread() as first, loop_in_a_thread() as second:
        first(database.start())
        second(database.start())
        first(ask(database))
        session = second(opened(database))
        first(database.stop())
        assert second(session.scalar(text("select 2"))) == 2
        second(database.end(session))
        second(database.stop())


async def opened(database: Database) -> Any:
    session = database.open_session()
    await session.execute(text("select 1"))
    return session


def test_a_loop_that_ends_without_a_stop_does_not_keep_it_running(sqlite_url: str) -> None:
    database = Database(DatabaseConfig(url=sqlite_url))
    with loop_in_a_thread() as lost:
        lost(database.start())
    with loop_in_a_thread() as run:
        run(database.start())
        run(database.stop())
    assert not database.started


def test_a_stop_from_elsewhere_stops_it_in_all_loops(postgres_url: str) -> None:
    database = Database(DatabaseConfig(url=postgres_url))
    with loop_in_a_thread() as first, loop_in_a_thread() as second, loop_in_a_thread() as other:
        for run in (first, second):
            run(database.start())
            run(ask(database))
        other(database.stop())
        assert not database.started
        assert database.existing_engine is None


async def test_a_start_that_failed_may_be_tried_again(sqlite_url: str) -> None:
    class Broken(MetaData):
        def create_all(self, *_: object, **__: object) -> None:
            raise LookupError

    config = DatabaseConfig(url=sqlite_url, pool=PoolConfig(timeout=1))
    database = Database(config, metadata=Broken(), create_all=True)
    for _ in range(2):
        with pytest.raises(LookupError):
            await database.start()
    await database.stop()
