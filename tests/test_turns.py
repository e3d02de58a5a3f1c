"""Tasks that share a read session take turns: each gets its answer, and nobody else notices."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import SessionClosedError
from tests.support.notes import held, metadata, notes, stored, write
from tests.support.pools import pool_of, until
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with one_connection(database_url) as made:
        yield made


def one_connection(url: str) -> Database:
    pool = PoolConfig(size=1, max_overflow=0, timeout=5)
    return Database(DatabaseConfig(url=url, pool=pool), metadata=metadata, create_all=True)


async def nothing_is_left(database: Database) -> None:
    """The one connection lies in the pool, outside of a transaction, and the next one can write."""
    assert held(database) == 0
    pool = pool_of(database.engine)
    for pooled in pool._slots.idle:
        assert not pool._backend.in_transaction(pooled.driver)
    async with database.session() as session:
        await write(session, "next")
        await session.commit()
    assert await stored(database) == ["next"]


def hold(gate: asyncio.Event) -> Callable[[Session], int]:
    """For `run_sync`: reads before and after a gate is opened, in one turn."""

    def read(session: Session) -> int:
        first: int = session.scalar(text("select 1"))
        await_only(gate.wait())
        second: int = session.scalar(text("select 1"))
        return first + second

    return read


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_reads_at_once_work(database: Database, warm: bool) -> None:
    async with database.read_session() as session:
        if warm:
            await session.execute(select(notes))
        reads = (session.scalar(text(f"select {number}")) for number in range(5))
        assert await asyncio.gather(*reads) == [0, 1, 2, 3, 4]
        assert held(database) == 0
    await nothing_is_left(database)


async def test_reads_at_once_cost_one_round_trip_each(postgres_url: str) -> None:
    with Relay.to(postgres_url) as relay:
        async with (
            one_connection(relay.url(postgres_url)) as database,
            database.read_session() as session,
        ):
            await session.scalar(select(notes.c.text))
            relay.reset()
            await asyncio.gather(*(session.scalar(select(notes.c.text)) for _ in range(3)))
            assert relay.counters.round_trips == 3


async def test_they_are_served_in_the_order_of_their_arrival(database: Database) -> None:
    order: list[int] = []

    async def read(session: AsyncSession, number: int) -> None:
        await session.scalar(text("select 1"))
        order.append(number)

    async with database.read_session() as session:
        await asyncio.gather(*(read(session, number) for number in range(4)))
    assert order == [0, 1, 2, 3]


async def test_one_that_fails_harms_no_other(database: Database) -> None:
    async with database.read_session() as session:
        results = await asyncio.gather(
            session.scalar(text("select 1")),
            session.scalar(text("select * from missing")),
            session.scalar(text("select 3")),
            return_exceptions=True,
        )
        assert (results[0], results[2]) == (1, 3)
        assert isinstance(results[1], DBAPIError)
    await nothing_is_left(database)


@pytest.mark.parametrize("cancelled", [0, 1, 2], ids=["reading", "waiting", "waiting last"])
async def test_one_that_is_cancelled_harms_no_other(database: Database, cancelled: int) -> None:
    gate = asyncio.Event()
    async with database.read_session() as session:
        reads: list[asyncio.Task[Any]] = [
            asyncio.create_task(session.run_sync(hold(gate))),
            asyncio.create_task(session.scalar(text("select 2"))),
            asyncio.create_task(session.scalar(text("select 3"))),
        ]
        await until(lambda: held(database) == 1)
        reads[cancelled].cancel()
        gate.set()
        results = await asyncio.gather(*reads, return_exceptions=True)
        assert isinstance(results.pop(cancelled), asyncio.CancelledError)
        expected = [2, 2, 3]  # the first adds two answers up
        del expected[cancelled]
        assert results == expected
    await nothing_is_left(database)


async def test_one_that_is_cancelled_when_its_turn_has_come_passes_it_on(
    database: Database,
) -> None:
    async with database.read_session() as session:
        reads: list[asyncio.Task[Any]] = []

        async def first() -> None:
            await session.scalar(text("select 1"))
            reads[1].cancel()  # which was called in this very moment

        reads.append(asyncio.create_task(first()))
        for number in (2, 3):
            statement = text(f"select {number}")
            reads.append(asyncio.create_task(session.scalar(statement)))
        results = await asyncio.wait_for(asyncio.gather(*reads, return_exceptions=True), 5)
        assert isinstance(results[1], asyncio.CancelledError)
        assert results[2] == 3
    await nothing_is_left(database)


async def test_a_turn_may_wait_for_a_task_that_reads(database: Database) -> None:
    """Which belongs to it, else both would wait for ever."""
    async with database.read_session() as session:

        def read(_: Session) -> Any:
            return await_only(asyncio.create_task(session.scalar(text("select 1"))))

        assert await asyncio.wait_for(session.run_sync(read), 5) == 1
        assert held(database) == 0
    await nothing_is_left(database)


async def test_a_task_that_a_turn_started_waits_for_the_turns_after_it(database: Database) -> None:
    gate = asyncio.Event()
    async with database.read_session() as session:

        async def late() -> Any:
            await gate.wait()
            return await session.scalar(text("select 1"))

        task = await session.run_sync(lambda _: asyncio.create_task(late()))
        other = asyncio.create_task(session.run_sync(hold(gate)))
        await until(lambda: held(database) == 1)
        gate.set()
        assert (await task, await other) == (1, 2)
        assert held(database) == 0
    await nothing_is_left(database)


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_an_end_waits_for_who_reads(database: Database, end: str) -> None:
    gate = asyncio.Event()
    async with database.read_session() as session:
        read = asyncio.create_task(session.run_sync(hold(gate)))
        await until(lambda: held(database) == 1)
        ending = asyncio.create_task(getattr(session, end)())
        await asyncio.sleep(0)
        assert (held(database), ending.done()) == (1, False)
        gate.set()
        assert await read == 2
        await ending
    await nothing_is_left(database)


async def test_a_stream_that_begins_while_others_read(database: Database) -> None:
    async with database.read_session() as session:
        before, rows, after = await asyncio.gather(
            session.scalar(text("select 1")),
            session.stream(text("select 2 union all select 3 order by 1")),
            session.scalar(text("select 4")),
        )
        assert (before, after) == (1, 4)
        assert held(database) == 1
        assert [row[0] async for row in rows] == [2, 3]
    await nothing_is_left(database)


async def test_a_block_of_begin_that_is_shared(database: Database) -> None:
    async with database.read_session() as session, session.begin():
        reads = (session.scalar(text(f"select {number}")) for number in range(3))
        assert await asyncio.gather(*reads) == [0, 1, 2]
        assert held(database) == 1
    await nothing_is_left(database)


async def test_the_sessions_end_under_a_read_ends_all_who_share_it(postgres_url: str) -> None:
    """Nobody gets a connection on which somebody's statement is still under way."""
    async with one_connection(postgres_url) as database:
        async with database.read_session() as session:
            reads = [
                asyncio.create_task(session.scalar(text("select 1 from pg_sleep(30)"))),
                asyncio.create_task(session.scalar(text("select 2"))),
            ]
            await until(lambda: held(database) == 1)
            pooled = next(iter(pool_of(database.engine)._leased.values()))
            await until(lambda: pooled.busy)
        reading, waiting = await asyncio.gather(*reads, return_exceptions=True)
        assert isinstance(reading, DBAPIError)
        assert isinstance(waiting, SessionClosedError)
        assert database.activity.snapshot().closed == {"unclean": 1}
        await nothing_is_left(database)
