"""`get_async_session` as a context manager."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
)

import reviewpoint_db
from reviewpoint_db import default
from reviewpoint_db.config import PoolConfig
from reviewpoint_db.errors import (
    DatabaseUnavailableError,
    PoolTimeoutError,
    SessionClosedError,
)
from tests.support.default import BOUND, config_of, create_notes, current, shown
from tests.support.notes import held, stored, write
from tests.support.postgres import PostgresServer


def test_get_async_session_is_one_object_that_inspection_takes_for_both(fresh: Any) -> None:
    function = default.get_async_session
    assert reviewpoint_db.get_async_session is function
    assert not inspect.iscoroutinefunction(function)
    assert inspect.isasyncgenfunction(function.__call__)
    assert not inspect.signature(function).parameters
    assert function.__name__ == "get_async_session"
    assert "async with" in (function.__doc__ or "")


async def test_a_session_for_a_block(on_both: Any) -> None:
    async with default.get_async_session() as session:
        assert isinstance(session, AsyncSession)
        assert await session.scalar(text("select 42")) == 42
    assert held(current()) == 0
    assert default._session_creation_count == 1


async def test_a_session_by_iteration(on_both: Any) -> None:
    async for session in default.get_async_session():
        assert await session.scalar(text("select 42")) == 42
    assert held(current()) == 0


async def test_what_is_not_committed_is_rolled_back(on_both: Any) -> None:
    default.ensure_engine_initialized()
    await create_notes()
    async with default.get_async_session() as session:
        await write(session, "committed")
        await session.commit()
        await write(session, "left")
    assert await stored(current()) == ["committed"]


async def test_an_error_rolls_back_and_closes(on_both: Any) -> None:
    default.ensure_engine_initialized()
    await create_notes()

    async def fail() -> None:
        async with default.get_async_session() as session:
            await write(session, "lost")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await stored(current()) == []
    assert held(current()) == 0
    assert default._connection_failures == 0


async def test_a_cancelled_block_rolls_back_and_closes(on_postgres: Any) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with default.get_async_session() as session:
            await session.execute(text("select 1"))
            inside.set()
            await session.execute(text("select pg_sleep(60)"))

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert held(current()) == 0


async def test_except_sqlalchemy_error_catches_what_the_database_says(
    on_both: Any, log: list[str]
) -> None:
    default.ensure_engine_initialized()
    await create_notes()

    async def collide() -> None:
        async with default.get_async_session() as session:
            await write(session, "s3cret")
            await write(session, "s3cret")

    with pytest.raises(SQLAlchemyError) as raised:
        await collide()
    assert isinstance(raised.value, IntegrityError)
    assert shown(log, "ERROR Database error after 0.")
    assert shown(log, "INFO After failed operation - Worker: main")
    assert "s3cret" not in "".join(log)


async def test_a_session_after_its_block_is_a_named_error(on_both: Any) -> None:
    async with default.get_async_session() as session:
        pass
    with pytest.raises(SessionClosedError, match="async with"):
        await session.execute(text("select 1"))


async def test_the_connection_is_tested_before_the_session_is_handed_out(
    fresh: Any, own_postgres: PostgresServer, own_url: str, log: list[str]
) -> None:
    default.configure(config_of(own_url, pool=PoolConfig(timeout=0.3)))
    async with default.get_async_session() as session:
        await session.execute(text("select 1"))
    await asyncio.to_thread(own_postgres.stop, "immediate")
    entered = False
    with pytest.raises(DatabaseUnavailableError):
        async with default.get_async_session() as session:
            entered = True
    assert not entered
    assert default._connection_failures > 0
    assert shown(log, "ERROR Connection test failed in 0.")
    own_postgres.start()
    async with asyncio.timeout(BOUND):
        while not await default.db_healthcheck():
            await asyncio.sleep(0.01)


async def test_the_test_is_repeated_while_the_failure_may_pass(
    fresh: Any, own_postgres: PostgresServer, own_url: str
) -> None:
    default.configure(config_of(own_url))
    default.ensure_engine_initialized()
    own_postgres.stop("immediate")

    async def use() -> int | None:
        async with default.get_async_session() as session:
            answer: int | None = await session.scalar(text("select 42"))
            return answer

    using = asyncio.create_task(use())
    async with asyncio.timeout(BOUND):
        while not default._connection_failures:
            await asyncio.sleep(0.01)
    await asyncio.to_thread(own_postgres.start)
    assert await using == 42


async def test_a_connection_that_died_in_the_pool_is_replaced(
    fresh: Any, own_postgres: PostgresServer, own_url: str
) -> None:
    default.configure(config_of(own_url))
    async with default.get_async_session() as session:
        await session.execute(text("select 1"))
    # In a thread, so that this loop sees the connection's end, as a server's does.
    await asyncio.to_thread(own_postgres.restart, "immediate")
    for _ in range(20):
        async with default.get_async_session() as session:
            assert await session.scalar(text("select 42")) == 42


async def test_the_test_costs_no_round_trip_and_leaves_the_isolation_level_free(
    on_postgres: Any,
) -> None:
    async with default.get_async_session() as session:
        assert not session.in_transaction()
        await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        assert await session.scalar(text("show transaction_isolation")) == "serializable"


async def test_an_exhausted_pool_is_a_named_error_that_says_what_to_do(
    fresh: Any, postgres_url: str
) -> None:
    pool = PoolConfig(size=1, max_overflow=0, timeout=0.2)
    default.configure(config_of(postgres_url, pool=pool))
    async with default.get_async_session() as session:
        await session.execute(text("select 1"))
        with pytest.raises(PoolTimeoutError, match=r"pool\.size"):
            async with default.get_async_session():
                pass
    assert held(current()) == 0
