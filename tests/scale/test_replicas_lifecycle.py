"""Databases with replicas over forks, closed loops, several loops, and a stop while one is frozen."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from reviewpoint_db.database import Database
from reviewpoint_db.pool import CLOSE_TIMEOUT
from tests.support.loops import loop_in_a_thread
from tests.support.replicas import PORT, config, port, reading, until, urls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import PostgresCluster
    from tests.support.run import Run

WATCH = "reviewpoint_db replicas"


@pytest.fixture(scope="module")
def own(run: Run) -> Iterator[PostgresCluster]:
    cluster = run.own_cluster("lifecycle", standbys=2, version=16)
    cluster.start()
    cluster.create_database("papers")
    yield cluster
    cluster.remove()


@pytest.fixture
def cluster(own: PostgresCluster) -> Iterator[PostgresCluster]:
    """Nobody is connected before, nor after; and no thread is left."""
    yield own
    for server in own.servers:
        server.thaw()
    nobody_is_left(own)


def nobody_is_left(cluster: PostgresCluster) -> None:
    deadline = time.monotonic() + 5
    while left := [row for server in cluster.servers for row in server.sessions("papers")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    assert WATCH not in {thread.name for thread in threading.enumerate()}


async def read_from_both(database: Database) -> None:
    await port(database)  # where nobody has started it, this begins to measure
    async with asyncio.timeout(15):
        read: set[int] = set()
        while len(read) != 2:  # a busy machine measures a replica late, which is not read meanwhile
            await until(lambda: reading(database) == 2)
            read = {await port(database) for _ in range(4)}


FORK = """
    import asyncio, os, sys
    from sqlalchemy import text
    from reviewpoint_db.config import DatabaseConfig, PoolConfig
    from reviewpoint_db.database import Database

    url, read_url = sys.argv[1:]
    database = Database(DatabaseConfig(
        url=url, read_url=read_url, environment="test", pool=PoolConfig(size=2, max_overflow=2)
    ))
    PLACE = text("select current_setting('port') || ':' || pg_backend_pid()")

    async def where():
        async with database.read_session() as session:
            return await session.scalar(PLACE)

    async def reading():
        async with asyncio.timeout(15):
            while [one.state for one in database.replicas.states()] != ["reading"] * 2:
                await asyncio.sleep(0.01)
        async with database.session() as session:
            return {await where() for _ in range(4)} | {await session.scalar(PLACE)}

    async def child():
        assert database.existing_engine is None
        assert database.replicas.existing() == (None, None)
        assert not database.started
        async with database:
            own = await reading()
        assert len(own) == 3 and not own & parents, (own, parents)

    async def open_and_read():
        await database.start()
        return await reading()

    def fork(work):
        process = os.fork()
        if process:
            return process
        asyncio.events._set_running_loop(None)  # the parent's loop is no loop of the child
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)

    loop = asyncio.new_event_loop()
    parents = loop.run_until_complete(open_and_read())
    assert len(parents) == 3
    # It does nothing, and has all that is open: what the parent closes must end nevertheless.
    idler = fork(lambda: sys.stdin.readline())
    forked = fork(lambda: asyncio.run(child()))
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    # Also after the child has ended, with all that it inherited.
    assert loop.run_until_complete(reading()) == parents, "other connections"
    loop.run_until_complete(database.stop())
    loop.close()
    print("stopped", flush=True)
    assert os.waitstatus_to_exitcode(os.waitpid(idler, 0)[1]) == 0
"""


def test_a_forked_child_shares_no_connection_to_any_host(cluster: PostgresCluster) -> None:
    """Nor does one that does nothing keep the parent's connections open after the parent's stop."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORK), *urls(cluster)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline() == "stopped\n", process.stderr.read()
            nobody_is_left(cluster)
            process.stdin.write("\n")
            process.stdin.close()
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_closed_loops_leave_no_backend_on_any_host(cluster: PostgresCluster) -> None:
    database = Database(config(cluster))
    for _ in range(3):
        asyncio.run(read_from_both(database))
    # Those of the last loop are there still: nobody asked since.
    used = sum(len(server.sessions("papers")) for server in cluster.standbys)
    assert used <= 2 + 2 * 2, "a closed loop's connections are open"
    asyncio.run(database.stop())
    nobody_is_left(cluster)


def test_several_loops_read_from_all_replicas_until_the_last_stop(
    cluster: PostgresCluster,
) -> None:
    database = Database(config(cluster))
    with loop_in_a_thread() as first, loop_in_a_thread() as second:
        for run in (first, second):
            run(database.start())
            run(read_from_both(database))
        assert database.replicas is not None
        assert len(database.replicas.engines()) == 4
        assert [thread.name for thread in threading.enumerate()].count(WATCH) == 1
        first(database.stop())
        assert len(database.replicas.engines()) == 2
        second(read_from_both(database))
        second(database.stop())
    nobody_is_left(cluster)


def test_threads_that_begin_at_once_have_one_watch(cluster: PostgresCluster) -> None:
    """Without a start: the first read begins to measure."""
    database = Database(config(cluster))
    meeting = threading.Barrier(4)

    async def read() -> None:
        meeting.wait(10)
        await read_from_both(database)
        await asyncio.to_thread(meeting.wait, 10)

    threads = [threading.Thread(target=asyncio.run, args=(read(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [thread.name for thread in threading.enumerate()].count(WATCH) == 1
    asyncio.run(database.stop())


async def test_a_stop_with_frozen_replicas_takes_as_long_as_with_one(
    cluster: PostgresCluster,
) -> None:
    """All have connections that nobody uses, and are not even known to be dead yet."""
    database = Database(config(cluster))
    await database.start()
    await read_from_both(database)
    cluster.freeze(1)
    cluster.freeze(2)
    started = time.monotonic()
    await database.stop()
    assert time.monotonic() - started < CLOSE_TIMEOUT + 2


async def test_a_stop_does_not_wait_for_what_hangs_on_a_frozen_replica(
    cluster: PostgresCluster,
) -> None:
    """Who was reading there reads elsewhere, and the stop waits for that alone."""
    database = Database(config(cluster))
    await database.start()
    await read_from_both(database)
    begun = asyncio.Event()

    async def read() -> int:
        async with database.read_session() as session:
            here: int = await session.scalar(PORT)
            index = [server.port for server in cluster.servers].index(here)
            await asyncio.to_thread(cluster.freeze, index)
            begun.set()
            found: int = await session.scalar(
                text("select current_setting('port')::int from pg_sleep(0.1)")
            )
            assert found != here
            return found

    task = asyncio.create_task(read())
    await begun.wait()
    started = time.monotonic()
    await database.stop()
    assert time.monotonic() - started < 3 + CLOSE_TIMEOUT + 1
    assert task.done()
    assert await task in {server.port for server in cluster.servers}
