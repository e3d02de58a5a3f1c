"""Replicas that are reached through PgBouncer, as their primary is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from tests.support.pgbouncer import PgBouncer
from tests.support.replicas import PORT, reading, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.cluster import PostgresCluster
    from tests.support.run import Run


@pytest.fixture(scope="module")
def cluster(run: Run) -> Iterator[PostgresCluster]:
    cluster = run.own_cluster("bounced", standbys=1)
    cluster.start()
    cluster.create_database("papers")
    cluster.catch_up()
    yield cluster
    cluster.remove()


@pytest.fixture(params=[None, True], ids=["noticed", "declared"])
async def database(
    request: pytest.FixtureRequest, run: Run, cluster: PostgresCluster
) -> AsyncIterator[Database]:
    folder = f"bouncer-{request.param}-"
    with (
        PgBouncer(run.folder / f"{folder}1", cluster.primary.url("papers"), pool_size=1) as primary,
        PgBouncer(
            run.folder / f"{folder}2", cluster.standbys[0].url("papers"), pool_size=1
        ) as standby,
    ):
        config = DatabaseConfig(
            url=primary.url, read_url=standby.url, environment="test", pgbouncer=request.param
        )
        async with Database(config) as database:
            yield database


async def test_they_are_read(cluster: PostgresCluster, database: Database) -> None:
    await until(lambda: reading(database) == 1)

    async def read() -> int:
        async with database.read_session() as session:
            found: int = await session.scalar(PORT)
            return found

    assert {*await asyncio.gather(*(read() for _ in range(8)))} == {cluster.standbys[0].port}
    # For as long as it takes to ask them a few times more, through one server connection.
    await asyncio.sleep(1.2)
    assert reading(database) == 1
    async with database.read_session() as session:
        with pytest.raises(DBAPIError, match="read-only"):
            await session.execute(text("create table forbidden (id int)"))
