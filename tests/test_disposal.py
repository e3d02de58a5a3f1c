"""The end of engines whose own loop, or whose driver, does not take part in it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from reviewpoint_db import disposal
from tests.support.pools import make_engine, pool_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import RemoteServer


@pytest.fixture
def elsewhere() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop

    async def rest() -> None:
        """What a test gave up goes on in that loop, and comes to its end before it."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=10)

    asyncio.run_coroutine_threadsafe(rest(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disposal, "CLOSE_TIMEOUT", 0.1)


def used(engine: AsyncEngine, loop: asyncio.AbstractEventLoop) -> AsyncEngine:
    """The engine, with an idle connection of that loop."""

    async def use() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    asyncio.run_coroutine_threadsafe(use(), loop).result(10)
    assert pool_of(engine).checkedin() == 1
    return engine


def backends(server: RemoteServer, url: str) -> int:
    database = url.rpartition("/")[2]
    return int(
        server.psql(
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
            " AND pid <> pg_backend_pid()"
        )
    )


async def gone(server: RemoteServer, url: str) -> None:
    async with asyncio.timeout(5):
        while await asyncio.to_thread(backends, server, url):
            await asyncio.sleep(0.02)


async def test_a_loop_in_another_thread_disposes_of_its_own(
    postgres_url: str, postgres: RemoteServer, elsewhere: asyncio.AbstractEventLoop
) -> None:
    engine = used(make_engine(postgres_url), elsewhere)
    await disposal.dispose(engine, elsewhere)
    await gone(postgres, postgres_url)


@pytest.mark.usefixtures("hurry")
async def test_the_connections_of_a_loop_that_hangs_are_cut(
    postgres_url: str, postgres: RemoteServer, elsewhere: asyncio.AbstractEventLoop
) -> None:
    engine = used(make_engine(postgres_url), elsewhere)
    hangs = threading.Event()
    elsewhere.call_soon_threadsafe(hangs.wait, 20)
    try:
        started = time.monotonic()
        await disposal.dispose(engine, elsewhere)
        assert time.monotonic() - started < 5
        await gone(postgres, postgres_url)
    finally:
        hangs.set()


async def test_the_connections_of_a_loop_that_is_closed_are_cut(
    postgres_url: str, postgres: RemoteServer
) -> None:
    engine = make_engine(postgres_url)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    used(engine, loop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
    await disposal.dispose(engine, loop)
    await gone(postgres, postgres_url)


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("ours", [True, False])
async def test_a_disposal_that_hangs_is_cut_short(
    postgres_url: str, postgres: RemoteServer, monkeypatch: pytest.MonkeyPatch, *, ours: bool
) -> None:
    """A listener of the application's may do anything."""
    if ours:
        engine = make_engine(postgres_url)
    else:
        url = postgres_url.replace("postgresql://", "postgresql+asyncpg://")
        engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))

    async def hang(_self: AsyncEngine, *, close: bool = True) -> None:
        del close
        await asyncio.sleep(60)

    monkeypatch.setattr(AsyncEngine, "dispose", hang)
    started = time.monotonic()
    await disposal.dispose(engine, asyncio.get_running_loop())
    assert time.monotonic() - started < 10
    await gone(postgres, postgres_url)


async def test_another_pool_of_a_closed_loop_is_left_to_itself(postgres_url: str) -> None:
    url = postgres_url.replace("postgresql://", "postgresql+asyncpg://")
    loop = asyncio.new_event_loop()
    loop.close()
    await disposal.dispose(create_async_engine(url, poolclass=NullPool), loop)
