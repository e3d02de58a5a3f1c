"""Read sessions against a real primary with two streaming standbys."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from reviewpoint_db.database import Database
from reviewpoint_db.lsn import MAX_LSN
from reviewpoint_db.read_your_writes import Tokens, lsn_of_commits
from reviewpoint_db.session_state import state_of
from tests.support.replicas import PORT, config, port, reading, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.cluster import PostgresCluster
    from tests.support.run import Run


@pytest.fixture(scope="module")
def cluster(run: Run) -> Iterator[PostgresCluster]:
    cluster = run.own_cluster("replicas", standbys=2)
    cluster.start()
    cluster.create_database("papers")
    cluster.primary.psql("CREATE TABLE notes (id int)", "papers")
    cluster.catch_up()
    yield cluster
    cluster.remove()


@pytest.fixture
async def database(cluster: PostgresCluster) -> AsyncIterator[Database]:
    async with Database(config(cluster, max_replica_lag=1.0)) as database:
        await until(lambda: reading(database) == 2)
        yield database
    for server in cluster.servers:
        server.thaw()
        server.start()


def ports(cluster: PostgresCluster) -> list[int]:
    return [server.port for server in cluster.servers]


async def test_reads_go_round_the_replicas_and_writes_to_the_primary(
    cluster: PostgresCluster, database: Database
) -> None:
    primary, *standbys = ports(cluster)
    assert sorted([await port(database) for _ in range(4)]) == sorted(standbys * 2)
    async with database.session() as session:
        assert await session.scalar(PORT) == primary


async def test_a_session_stays_with_its_replica(database: Database) -> None:
    async with database.read_session() as session:
        assert len({await session.scalar(PORT) for _ in range(4)}) == 1


async def test_a_stream_reads_from_a_replica(cluster: PostgresCluster, database: Database) -> None:
    async with database.read_session() as session:
        found = await session.stream(PORT)
        assert {row[0] async for row in found} < set(ports(cluster)[1:])


async def test_the_server_itself_refuses_to_write(database: Database) -> None:
    async with database.read_session() as session:
        setting = "select current_setting('default_transaction_read_only')"
        assert await session.scalar(text(setting)) == "on"
        with pytest.raises(DBAPIError, match="read-only"):
            await session.execute(text("create table forbidden (id int)"))


async def test_the_lag_of_an_idle_primary_does_not_grow(database: Database) -> None:
    assert database.replicas is not None
    await asyncio.sleep(1.5)  # longer than the limit: nothing may happen
    assert reading(database) == 2
    assert all(one.lag is not None and one.lag < 1 for one in database.replicas.states())


async def test_a_replica_that_lags_gets_no_reads_until_it_has_caught_up(
    cluster: PostgresCluster, database: Database
) -> None:
    cluster.pause_replay(1)
    cluster.primary.psql("INSERT INTO notes VALUES (1)", "papers")
    await until(lambda: reading(database) == 1)
    assert {await port(database) for _ in range(4)} == {cluster.servers[2].port}
    cluster.resume_replay(1)
    await until(lambda: reading(database) == 2)


async def test_a_replica_that_dies_costs_no_read(
    cluster: PostgresCluster, database: Database
) -> None:
    for _ in range(4):
        await port(database)
    cluster.servers[1].kill()
    started = time.monotonic()
    assert {await port(database) for _ in range(6)} == {cluster.servers[2].port}
    assert time.monotonic() - started < 4
    cluster.servers[1].start()
    await until(lambda: reading(database) == 2)


async def test_a_frozen_replica_holds_only_those_who_are_on_it_and_not_for_long(
    cluster: PostgresCluster, database: Database
) -> None:
    async def slow() -> int:
        async with database.read_session() as session:
            found: int = await session.scalar(
                text("select current_setting('port')::int from pg_sleep(0.5)")
            )
            return found

    tasks = [asyncio.create_task(slow()) for _ in range(2)]
    await until(lambda: len(database.activity.held()) == 2)
    cluster.freeze(1)
    frozen = time.monotonic()
    await until(lambda: reading(database) == 1)
    assert time.monotonic() - frozen < 3
    started = time.monotonic()
    assert {await port(database) for _ in range(4)} == {cluster.servers[2].port}
    assert time.monotonic() - started < 1
    await asyncio.wait(tasks, timeout=3)
    assert all(task.done() for task in tasks)
    assert {task.result() for task in tasks} == {cluster.servers[2].port}
    cluster.thaw(1)
    await until(lambda: reading(database) == 2)


async def test_without_replicas_the_primary_reads_and_one_warning_says_so(
    cluster: PostgresCluster, database: Database
) -> None:
    for index in (1, 2):
        cluster.servers[index].kill()
    await until(lambda: reading(database) == 0)
    assert {await port(database) for _ in range(4)} == {cluster.primary.port}
    assert database.activity.snapshot().warnings["no_replica"] == 1
    for index in (1, 2):
        cluster.servers[index].start()
    await until(lambda: reading(database) == 2)
    assert await port(database) != cluster.primary.port


async def test_replicas_read_on_while_the_primary_is_down(
    cluster: PostgresCluster, database: Database
) -> None:
    cluster.primary.kill()
    await asyncio.sleep(2)  # longer than the limit: nothing newer can exist
    assert {await port(database) for _ in range(4)} == set(ports(cluster)[1:])
    cluster.primary.start()


async def test_replicas_are_read_by_who_starts_while_the_primary_is_down(
    cluster: PostgresCluster,
) -> None:
    cluster.primary.kill()
    try:
        async with Database(config(cluster)) as database:
            await until(lambda: reading(database) == 2)
            assert {await port(database) for _ in range(4)} == set(ports(cluster)[1:])
            assert database.replicas is not None
            assert {one.lag for one in database.replicas.states()} == {None}
            assert database.activity.snapshot().warnings == {"replica_lag_unknown": 1}
            cluster.primary.start()
            states = database.replicas.states
            await until(lambda: all(one.lag is not None for one in states()))
            assert {await port(database) for _ in range(4)} == set(ports(cluster)[1:])
    finally:
        cluster.primary.start()


async def test_a_stop_closes_the_connections_to_the_replicas(cluster: PostgresCluster) -> None:
    async with Database(config(cluster)) as database:
        await until(lambda: reading(database) == 2)
        for _ in range(4):
            await port(database)
        assert any(server.sessions("papers") for server in cluster.standbys)
    await until(lambda: not any(server.sessions("papers") for server in cluster.servers))


async def test_a_read_after_a_commit_sees_it_or_uses_the_primary(cluster: PostgresCluster) -> None:
    settings = {"read_your_writes": True, "read_your_writes_secret": "s" * 20}
    async with Database(config(cluster, **settings)) as database:
        await until(lambda: reading(database) == 2)
        cluster.pause_replay(1)
        try:
            async with database.session() as session:
                await session.execute(text("insert into notes values (42)"))
                await session.commit()
            lsn = await lsn_of_commits(database)
            assert lsn < MAX_LSN
            for _ in range(4):
                await database.end(await seeing(database, lsn))
        finally:
            cluster.resume_replay(1)
        await until(lambda: reading(database) == 2)
        assert Tokens(database.config).read(Tokens(database.config).make(lsn)) == lsn


async def seeing(database: Database, lsn: int) -> Any:
    session = database.open_read_session()
    state_of(session).required_lsn = lsn
    assert await session.scalar(text("select count(*) from notes where id = 42")) == 1
    return session


async def test_a_replica_that_was_promoted_is_read_and_told_of(cluster: PostgresCluster) -> None:
    async with Database(config(cluster)) as database:
        await until(lambda: reading(database) == 2)
        cluster.servers[2].promote()
        await until(lambda: "replica_promoted" in database.activity.snapshot().warnings)
        assert reading(database) == 2
        assert database.replicas is not None
        assert {one.role for one in database.replicas.states()} == {"replica", "primary"}
        assert {await port(database) for _ in range(4)} == set(ports(cluster)[1:])
