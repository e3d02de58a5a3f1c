"""A statement on SQLite ends within `query_timeout`, and a rollback although it was interrupted."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, exc, text

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import QueryTimeoutError
from reviewpoint_db.sqlite_connection import SQLiteConnection, StatementExpired

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession

metadata = MetaData()
papers = Table("papers", metadata, Column("id", Integer, primary_key=True), Column("title", String))
NUMBERS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
#: Seconds.
LIMIT = 0.2


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(
        url=sqlite_url,
        environment="test",
        query_timeout=LIMIT,
        pool=PoolConfig(size=1, max_overflow=0, timeout=5),
    )
    async with Database(config, metadata=metadata, create_all=True) as database:
        yield database


async def driver_of(session: AsyncSession) -> Any:
    connection = await session.connection()
    return (await connection.get_raw_connection()).driver_connection


async def titles(database: Database) -> list[str]:
    async with database.read_session() as session:
        return list((await session.scalars(text("SELECT title FROM papers"))).all())


async def test_a_read_beyond_its_time_limit_is_named_and_the_connection_goes_on(
    database: Database,
) -> None:
    async with asyncio.timeout(10), database.session() as session:
        driver = await driver_of(session)
        with pytest.raises(QueryTimeoutError) as raised:
            await session.execute(text(NUMBERS + "SELECT count(*) FROM n"))
        assert str(raised.value) == (
            "A statement did not end within query_timeout (0.2 s). "
            "Make the statement faster, or raise query_timeout."
        )
        assert isinstance(raised.value.orig, StatementExpired)
        await session.rollback()
        await session.execute(papers.insert().values(title="later"))
        await session.commit()
        assert await driver_of(session) is driver
    assert await titles(database) == ["later"]
    assert database.activity.snapshot().closed == {}


async def test_so_is_one_of_a_read_session(database: Database) -> None:
    async with asyncio.timeout(10), database.read_session() as session:
        with pytest.raises(QueryTimeoutError):
            await session.execute(text(NUMBERS + "SELECT count(*) FROM n"))
        assert await session.scalar(text("SELECT 42")) == 42


@pytest.mark.parametrize("parameters", [{"below": 0}, [{"below": 3}, {"below": 0}]])
async def test_a_write_beyond_its_time_limit_takes_its_transaction_with_it(
    database: Database, parameters: Any
) -> None:
    """SQLite has rolled it back: what follows would be stored by itself."""
    endless = text(
        "INSERT INTO papers (title) " + NUMBERS + "SELECT 'never' FROM n WHERE x < :below LIMIT 1"
    )
    async with asyncio.timeout(10), database.session() as session:
        await session.execute(papers.insert().values(title="before"))
        with pytest.raises(QueryTimeoutError):
            await session.execute(endless, parameters)
        with pytest.raises(exc.PendingRollbackError):
            await session.execute(papers.insert().values(title="after"))
        await session.rollback()
        await session.execute(papers.insert().values(title="later"))
        await session.commit()
    assert await titles(database) == ["later"]


async def test_the_outcome_of_a_statement_that_commits_by_itself_is_known(
    database: Database,
) -> None:
    async with asyncio.timeout(10), database.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(QueryTimeoutError):
            await connection.execute(
                text("INSERT INTO papers (title) " + NUMBERS + "SELECT x FROM n WHERE x < 0")
            )
    assert await titles(database) == []


async def test_each_part_of_a_stream_has_the_time_limit_and_its_reader_has_none(
    database: Database,
) -> None:
    rows = text(NUMBERS + "SELECT x FROM n WHERE x <= 7")
    async with asyncio.timeout(10), database.session() as session:
        stream = await session.stream(rows, execution_options={"yield_per": 2})
        for number in (1, 3, 5):
            assert await stream.fetchmany(2) == [(number,), (number + 1,)]
            await asyncio.sleep(LIMIT / 2)
        with pytest.raises(QueryTimeoutError):
            await stream.fetchmany(2)
        await session.rollback()
        assert await session.scalar(text("SELECT 42")) == 42


def connect(query_timeout: float) -> SQLiteConnection:
    return SQLiteConnection(":memory:", query_timeout=query_timeout)


def test_all_rows_of_a_statement_share_its_time_limit() -> None:
    """The first one is there in time; all are not."""
    connection = connect(LIMIT)
    cursor = connection.cursor()
    cursor.execute(NUMBERS + "SELECT x FROM n WHERE x <= 1")
    with pytest.raises(StatementExpired):
        cursor.fetchall()
    assert cursor._left < 0.01
    assert connection.execute("SELECT 42").fetchone() == (42,)
    connection.close()


def test_what_was_interrupted_before_its_time_limit_says_so() -> None:
    connection = connect(30)
    connection.create_function("interrupt", 0, connection.interrupt)
    with pytest.raises(sqlite3.OperationalError, match="interrupted") as raised:
        connection.execute(NUMBERS + "SELECT interrupt() FROM n").fetchall()
    assert not isinstance(raised.value, StatementExpired)
    connection.close()


@pytest.mark.parametrize(
    ("answer", "message"), [(sqlite3.SQLITE_DENY, "not authorized"), (99, "malfunction")]
)
def test_a_rollback_that_fails_for_another_reason_says_so(answer: int, message: str) -> None:
    """And it closes no cursor for that."""
    connection = connect(30)

    def refuse(action: int, *_: object) -> int:
        return answer if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK

    connection.execute("CREATE TABLE papers (id int)")
    connection.execute("INSERT INTO papers VALUES (1), (2)")
    cursor = connection.cursor().execute("SELECT id FROM papers")
    assert cursor.fetchone() == (1,)
    connection.set_authorizer(refuse)
    with pytest.raises(sqlite3.DatabaseError, match=message):
        connection.rollback()
    assert cursor.fetchone() == (2,)
    connection.close()
