"""An engine for each event loop: second loops, threads, closed loops, forks and races."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.loops import EnginesByLoop
from tests.support.commands import printed_by
from tests.support.pools import make_engine, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tests.support.postgres import RemoteServer


async def ask(database: Database) -> int:
    async with database.session() as session:
        result: int = await session.scalar(text("SELECT 1"))
        return result


def backends(server: RemoteServer, url: str) -> int:
    return len(server.sessions(url.rpartition("/")[2]))


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


class Engines(EnginesByLoop):
    """Counts what it makes."""

    def __init__(self, url: str) -> None:
        self.made: list[AsyncEngine] = []
        super().__init__(self._make_and_count)
        self._url = url

    def _make_and_count(self) -> AsyncEngine:
        time.sleep(0.001)  # room for a race
        self.made.append(make_engine(self._url))
        return self.made[-1]


def test_a_second_loop_gets_an_engine_of_its_own(database_url: str) -> None:
    database = Database(DatabaseConfig(url=database_url, environment="test"))

    async def use() -> AsyncEngine:
        assert await ask(database) == 1
        return database.engine

    first = asyncio.run(use())
    second = asyncio.run(use())
    assert first is not second
    asyncio.run(database.stop())


def test_two_threads_with_loops_work_at_once(database_url: str) -> None:
    database = Database(DatabaseConfig(url=database_url, environment="test"))
    meeting = threading.Barrier(2)

    async def use() -> tuple[list[int], int]:
        meeting.wait(10)
        answers = await asyncio.gather(*(ask(database) for _ in range(20)))
        engine = id(database.engine)
        meeting.wait(10)
        await database.engine.dispose()
        return answers, engine

    with ThreadPoolExecutor(2) as threads:
        jobs = [threads.submit(asyncio.run, use()) for _ in range(2)]
        (one, first), (two, second) = [job.result(20) for job in jobs]
    assert one == two == [1] * 20
    assert first != second
    asyncio.run(database.stop())


def test_closed_loops_leave_no_backend(postgres_url: str, postgres: RemoteServer) -> None:
    database = Database(DatabaseConfig(url=postgres_url, environment="test"))

    async def use() -> None:
        await asyncio.gather(*(ask(database) for _ in range(3)))

    for _ in range(4):
        asyncio.run(use())
    assert backends(postgres, postgres_url) >= 1  # of the last loop: nobody asked since
    asyncio.run(database.stop())
    wait_until(lambda: backends(postgres, postgres_url) == 0)
    assert database.activity.holders() == ()


def test_an_engine_made_without_a_loop_is_adopted_by_the_first(sqlite_url: str) -> None:
    engines = Engines(sqlite_url)
    assert engines.existing() is None
    early = engines.current()
    assert engines.current() is engines.existing() is early
    assert engines.all() == (early,)

    async def current() -> AsyncEngine:
        # A loop sees the engine that it would adopt.
        assert engines.existing() is not None
        return engines.current()

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(current()) is early
    assert loop.run_until_complete(current()) is early
    # Without a loop, there is still one to look at.
    assert engines.current() is engines.existing() is early
    assert engines.all() == (early,)
    loop.close()
    assert engines.all() == ()


async def test_a_loop_without_an_engine_sees_none(sqlite_url: str) -> None:
    engines = Engines(sqlite_url)
    assert engines.existing() is None
    await asyncio.to_thread(asyncio.run, _current(engines))
    assert engines.existing() is None
    assert engines.current() is engines.existing()


async def _current(engines: EnginesByLoop) -> AsyncEngine:
    return engines.current()


async def test_taking_all_leaves_none(sqlite_url: str) -> None:
    engines = Engines(sqlite_url)
    here = engines.current()
    engines._unadopted = other = make_engine(sqlite_url)
    loop = asyncio.get_running_loop()
    assert list(engines.take_all()) == [(loop, here), (None, other)]
    assert list(engines.take_all()) == []
    assert engines.current() is not here


def test_an_engine_with_another_pool_is_dropped_with_its_loop(sqlite_url: str) -> None:
    def make() -> AsyncEngine:
        return create_async_engine(
            sqlite_url.replace("sqlite:", "sqlite+aiosqlite:"), poolclass=NullPool
        )

    engines = EnginesByLoop(make)
    asyncio.run(_current(engines))
    assert engines.all() == ()


def test_100_threads_make_one_engine_a_loop(sqlite_url: str) -> None:
    engines = Engines(sqlite_url)
    start = threading.Barrier(100)
    got: list[AsyncEngine] = []

    def race() -> None:
        start.wait(20)
        got.append(engines.current())

    threads = [threading.Thread(target=race) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(set(map(id, got))) == len(engines.made) == 1


def test_100_threads_with_loops_make_an_engine_each(sqlite_url: str) -> None:
    engines = Engines(sqlite_url)
    start, end = threading.Barrier(100), threading.Barrier(100)

    async def race() -> set[int]:
        start.wait(20)
        mine = {id(engines.current()) for _ in range(10)}
        end.wait(20)  # nobody's loop closes before
        return mine

    with ThreadPoolExecutor(100) as threads:
        jobs = [threads.submit(asyncio.run, race()) for _ in range(100)]
        results = [job.result(30) for job in jobs]
    assert all(len(result) == 1 for result in results)
    assert len(set.union(*results)) == len(engines.made) == 100


FORK = """
    import asyncio, os, sys
    from sqlalchemy import text
    from reviewpoint_db.config import DatabaseConfig
    from reviewpoint_db.database import Database

    database = Database(DatabaseConfig(url=sys.argv[1], environment="test"))

    async def pid():
        async with database.session() as session:
            return await session.scalar(text("SELECT pg_backend_pid()"))

    async def child():
        # Nothing inherited is used, nor closed.
        assert database.existing_engine is None
        mine = await pid()
        assert mine != parents, "the parent's connection"
        await database.stop()

    loop = asyncio.new_event_loop()
    parents = loop.run_until_complete(pid())
    process = os.fork()
    if not process:
        # The parent's loop is no loop of the child.
        asyncio.events._set_running_loop(None)
        code = 1
        try:
            asyncio.run(child())
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    # Also after the child has ended, with all that it inherited.
    assert loop.run_until_complete(pid()) == parents, "another connection"
    loop.run_until_complete(database.stop())
    loop.close()
    print("well")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_starts_with_no_connections_and_leaves_the_parents_alone(
    postgres_url: str,
) -> None:
    assert printed_by(FORK, postgres_url) == "well\n"


def test_what_a_fork_inherited_is_kept_and_never_used(sqlite_url: str) -> None:
    """As the child of a fork sees it."""
    engines = Engines(sqlite_url)
    loop = asyncio.new_event_loop()
    before = loop.run_until_complete(_current(engines))
    engines.forget_parent()
    assert engines.existing() is None
    after = loop.run_until_complete(_current(engines))
    assert after is not before
    assert engines.all() == (after,)
    assert len(engines._inherited) == 1
    loop.close()


async def test_stop_ends_the_engines_of_other_threads_in_their_own_loops(
    postgres_url: str, postgres: RemoteServer
) -> None:
    database = Database(DatabaseConfig(url=postgres_url, environment="test"))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    future: Any = asyncio.run_coroutine_threadsafe(ask(database), loop)
    assert await asyncio.wrap_future(future) == 1
    assert await ask(database) == 1
    await database.stop()
    await until(lambda: backends(postgres, postgres_url) == 0)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
