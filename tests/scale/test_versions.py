"""Older servers than those that all other tests run on: PostgreSQL 16, and Debian's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from reviewpoint_db.checks import run_checks
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from tests.support.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.run import Run


@pytest.fixture(scope="module", params=[16, "debian"])
def server(run: Run, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    server = run.own_server("older", request.param)
    server.start()
    server.create_database("papers")
    server.psql("CREATE TABLE notes (id int PRIMARY KEY)", "papers")
    yield server
    server.remove()


async def test_all_that_asks_the_server_is_answered(server: PostgresServer) -> None:
    config = DatabaseConfig(url=server.url("papers"), environment="test")
    async with Database(config) as database:
        async with database.session() as session:
            await session.execute(text("INSERT INTO notes VALUES (1)"))
            view = await database.look_at_server()
            assert view.error is None
            (holder,) = [each.holder for each in view.connections if each.holder]
            assert holder.state == "idle in transaction"
            assert view.figures
            await session.commit()
        async with database.read_session() as session:
            assert await session.scalar(text("SELECT count(*) FROM notes")) == 1
        assert (await database.health()).status == "healthy"
        assert not [found.id for found in await run_checks(database)]


async def test_a_server_that_came_to_its_end_is_found_again(server: PostgresServer) -> None:
    config = DatabaseConfig(url=server.url("papers"), environment="test")
    async with Database(config) as database:
        async with database.session() as session:
            await session.execute(text("SELECT 1"))
            await asyncio.to_thread(server.restart)
            with pytest.raises(DBAPIError) as caught:
                await session.execute(text("SELECT 1"))
            assert caught.value.connection_invalidated
        async with database.session() as session:
            assert await session.scalar(text("SELECT 42")) == 42
