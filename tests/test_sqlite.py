"""SQLite as a database to trust: concurrent writers, private memory, clean connections."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiosqlite
import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    event,
    exc,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.util import greenlet_spawn

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.sqlite import MemoryDatabase, SQLite, _switch_to_wal
from tests.support.logs import logged
from tests.support.pools import engine_with_pool, make_engine, pool_of, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

metadata = MetaData()
papers = Table(
    "papers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("title", String),
    Column("parent", ForeignKey("papers.id")),
)


@pytest.fixture(params=["file", "memory"])
async def database(request: pytest.FixtureRequest, sqlite_url: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(
        url=sqlite_url if request.param == "file" else "sqlite:///:memory:", environment="test"
    )
    async with Database(config, metadata=metadata, create_all=True) as database:
        yield database


async def test_a_file_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    """One that reports to a loop which is closed by then dies with a traceback on the terminal."""
    engine = make_engine(f"sqlite:///{tmp_path}/no-such-folder/papers.sqlite3")
    for _ in range(50):
        before = set(threading.enumerate())
        with pytest.raises(exc.OperationalError):
            await engine.connect()
        assert set(threading.enumerate()) <= before
    await engine.dispose()


async def test_64_writers_at_once_give_64_rows(database: Database) -> None:
    """Each reads before it writes, which is what makes a deferred transaction fail."""
    missed: list[Exception] = []

    async def write(number: int) -> None:
        async with database.session() as session:
            count = await session.scalar(text("SELECT count(*) FROM papers"))
            await session.execute(papers.insert().values(title=f"{number} after {count}"))
            await session.commit()

    async def read() -> None:
        try:
            async with database.read_session() as session:
                await session.scalar(text("SELECT count(*) FROM papers"))
        except exc.SQLAlchemyError as error:
            missed.append(error)

    work = [write(number) for number in range(64)] + [read() for _ in range(64)]
    await asyncio.gather(*work)
    async with database.read_session() as session:
        assert await session.scalar(text("SELECT count(*) FROM papers")) == 64
    assert missed == []


async def test_sessions_do_not_see_each_others_open_transactions(database: Database) -> None:
    async with database.session() as writer:
        await writer.execute(papers.insert().values(title="unseen"))
        async with database.read_session() as reader:
            assert await reader.scalar(text("SELECT count(*) FROM papers")) == 0
        await writer.rollback()
    async with database.session() as session:
        assert await session.scalar(text("SELECT count(*) FROM papers")) == 0


async def test_foreign_keys_and_write_ahead_logging_are_on(database: Database) -> None:
    async with database.session() as session:
        assert await session.scalar(text("PRAGMA foreign_keys")) == 1
        assert await session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await session.scalar(text("PRAGMA synchronous")) == 1
        assert await session.scalar(text("PRAGMA busy_timeout")) == 10_000
    async with database.session() as session:
        with pytest.raises(exc.IntegrityError):
            await session.execute(papers.insert().values(title="orphan", parent=99))


@pytest.mark.parametrize(("query", "waits"), [("", 3_000), ("?timeout=0.5", 500)])
async def test_a_writer_waits_as_long_as_the_url_says_or_else_the_pool(
    sqlite_url: str, query: str, waits: int
) -> None:
    config = DatabaseConfig(url=sqlite_url + query, environment="test", pool=PoolConfig(timeout=3))
    async with Database(config) as database, database.session() as session:
        assert await session.scalar(text("PRAGMA busy_timeout")) == waits


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


async def test_a_cancelled_statement_is_interrupted(sqlite_url: str) -> None:
    """Else its thread would go on, with the write lock, for as long as the statement takes."""
    async with engine_with_pool(sqlite_url, size=1, max_overflow=0) as engine:

        async def run() -> None:
            async with engine.connect() as connection:
                await connection.execute(text(ENDLESS))

        for turns in (0, 1, 2, 4, 8, 16, 1000):
            task = asyncio.create_task(run())
            await until(lambda: pool_of(engine).checkedout())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
            async with engine.connect() as connection:
                assert await asyncio.wait_for(connection.scalar(text("SELECT 1")), 5) == 1


async def test_a_statement_that_begins_after_the_interrupt_is_interrupted_too(
    sqlite_url: str,
) -> None:
    """It was still in the thread's queue, and SQLite forgets an interrupt when nothing runs."""
    driver = await aiosqlite.connect(sqlite_url.removeprefix("sqlite:///"))
    SQLite().interrupt(driver)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await asyncio.wait_for(driver.execute_fetchall(ENDLESS), 5)
    await driver.close()


async def test_a_statement_that_hears_no_interrupt_is_interrupted_no_more_after_a_while(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reviewpoint_db.sqlite._INTERRUPT_FOR", 0.1)
    released = threading.Event()
    interrupts: list[float] = []

    class Driver(aiosqlite.Connection):
        async def interrupt(self) -> None:
            interrupts.append(time.monotonic())
            await super().interrupt()

    driver = await Driver(
        lambda: sqlite3.connect(sqlite_url.removeprefix("sqlite:///")), iter_chunk_size=64
    )
    await driver.create_function("wait", 0, lambda: released.wait(10))
    task = asyncio.create_task(driver.execute_fetchall("SELECT wait()"))
    try:
        with logged("WARNING") as lines:
            SQLite().interrupt(driver)
            await until(lambda: len(lines) > 0)
            told = len(interrupts)
            await asyncio.sleep(0.1)
    finally:
        released.set()
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await task
        await driver.close()
    (line,) = lines
    assert line.startswith("WARNING|A SQLite connection is still open 0.1 s after its interrupt")
    assert len(interrupts) == told > 1


async def test_a_stream_that_is_cancelled_and_still_alive_leaves_no_lock(
    database: Database,
) -> None:
    """A traceback keeps its cursor, and an interrupt holds, rollback included, while one is open."""
    async with database.session() as session:
        await session.execute(papers.insert(), [{"title": str(number)} for number in range(500)])
        await session.commit()
    cursors = []
    asked = asyncio.Event()

    async def read() -> None:
        async with database.session() as session:
            await session.execute(papers.insert().values(title="never stored"))
            stream = await session.stream(papers.select())
            cursors.append(stream)
            await stream.fetchone()
            asked.set()
            await session.execute(text(ENDLESS))

    task = asyncio.create_task(read())
    await asked.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    async with asyncio.timeout(5), database.session() as session:
        await session.execute(papers.insert().values(title="written at once"))
        await session.commit()
        titles = (await session.scalars(select(papers.c.title))).all()
    assert len(cursors) == 1
    assert len(titles) == 501
    assert "never stored" not in titles


async def test_a_connection_that_comes_back_unclean_is_refused(sqlite_url: str) -> None:
    """The write lock of a transaction that is still open would stop all other writers."""
    async with engine_with_pool(sqlite_url, size=1, max_overflow=0) as engine:

        @event.listens_for(engine.sync_engine, "checkin", once=True)
        def leave_open(connection: Any, _record: object) -> None:
            connection.driver_connection._conn.execute("BEGIN IMMEDIATE")

        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
        async with engine.connect() as connection:
            assert (await connection.get_raw_connection()).driver_connection is not driver
            await connection.execute(text("CREATE TABLE free (id int)"))
        assert pool_of(engine).activity.snapshot().closed == {"unclean": 1}


async def test_a_database_that_is_locked_while_it_is_opened_is_waited_for(sqlite_url: str) -> None:
    """Turning on write-ahead logging needs the file for itself, for a moment."""
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("CREATE TABLE busy (id int)")
    other.execute("BEGIN EXCLUSIVE")
    async with engine_with_pool(sqlite_url) as engine:

        async def ask() -> Any:
            async with engine.connect() as connection:
                return await connection.scalar(text("SELECT 1"))

        task = asyncio.create_task(ask())
        await until(lambda: pool_of(engine).total() == 1)
        await asyncio.sleep(0.1)
        other.execute("COMMIT")
        other.close()
        assert await asyncio.wait_for(task, 8) == 1


def test_a_new_file_is_opened_by_several_at_once(tmp_path: Path) -> None:
    """Two that switch it to write-ahead logging would wait for each other: SQLite refuses one."""
    meeting = threading.Barrier(4)

    async def open_it(url: str) -> list[Any]:
        async with engine_with_pool(url, size=5) as engine:

            async def ask() -> Any:
                async with engine.connect() as connection:
                    return await connection.scalar(text("PRAGMA journal_mode"))

            meeting.wait(10)
            return await asyncio.gather(*(ask() for _ in range(5)))

    with ThreadPoolExecutor(4) as threads:
        for number in range(20):
            url = f"sqlite:///{tmp_path / str(number)}"
            jobs = [threads.submit(asyncio.run, open_it(url)) for _ in range(4)]
            assert [job.result(20) for job in jobs] == [["wal"] * 5] * 4


class _BusyOnce(sqlite3.Cursor):
    """Another one switches the file at the same moment: SQLite refuses one of them at once."""

    refused = False

    def execute(self, *args: Any) -> Any:
        if "journal_mode" in args[0] and not self.refused:
            self.refused = True
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return super().execute(*args)


async def test_a_switch_that_is_refused_because_of_another_one_is_tried_again(
    tmp_path: Path,
) -> None:
    connection = sqlite3.connect(tmp_path / "new")
    await greenlet_spawn(_switch_to_wal, connection.cursor(_BusyOnce))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_a_file_that_stays_locked_is_an_error(sqlite_url: str) -> None:
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("CREATE TABLE busy (id int)")
    other.execute("BEGIN EXCLUSIVE")
    async with engine_with_pool(f"{sqlite_url}?timeout=0.05", timeout=0.5) as engine:
        with pytest.raises(exc.OperationalError, match="database is locked"):
            async with engine.connect():
                pass
    other.close()


async def test_no_threads_are_left(sqlite_url: str) -> None:
    before = threading.active_count()
    engine = make_engine(sqlite_url, size=5)
    connections = [await engine.connect() for _ in range(5)]
    assert threading.active_count() == before + 5
    for connection in connections:
        await connection.close()
    await engine.dispose()
    await until(lambda: threading.active_count() == before)


def test_an_abandoned_connection_ends_its_thread(sqlite_url: str) -> None:
    async def connect() -> aiosqlite.Connection:
        return await aiosqlite.connect(sqlite_url.removeprefix("sqlite:///"))

    before = threading.active_count()
    driver = asyncio.run(connect())
    assert threading.active_count() == before + 1
    SQLite().abandon(driver)
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)  # a loop without it can hang in the coverage's tracer
    driver._connection = None  # closed by its thread, or by nobody in aiosqlite before 0.22


async def test_what_the_driver_says_of_a_closed_connection(sqlite_url: str) -> None:
    backend = SQLite()
    driver = await aiosqlite.connect(sqlite_url.removeprefix("sqlite:///"))
    await backend.ping(driver, 1)
    assert not backend.is_closed(driver)
    assert not backend.in_transaction(driver)
    await driver.execute("BEGIN")
    assert backend.in_transaction(driver)
    await backend.close(driver, 1)
    assert backend.is_closed(driver)
    assert not backend.in_transaction(driver)
    backend.terminate(driver)
    await backend.close(driver, 1)


async def test_the_file_behind_a_memory_database_is_gone_after_stop() -> None:
    config = DatabaseConfig(url="sqlite:///:memory:")
    database = Database(config, metadata=metadata, create_all=True)
    files: list[Path] = []
    for _ in range(2):  # each start begins with an empty database
        async with database:
            file = Path(database.engine.url.database or "")
            assert await asyncio.to_thread(file.exists)
            files.append(file)
            async with database.session() as session:
                assert await session.scalar(text("SELECT count(*) FROM papers")) == 0
                await session.execute(papers.insert().values(title="gone"))
                await session.commit()
        assert not await asyncio.to_thread(file.parent.exists)
    assert files[0] != files[1]


def test_a_memory_database_keeps_the_urls_options() -> None:
    memory = MemoryDatabase()
    url = memory.url(make_url("sqlite+aiosqlite:///:memory:?timeout=3"))
    assert url.query == {"timeout": "3"}
    assert str(url.database).endswith("memory.sqlite3")
    memory.remove()
