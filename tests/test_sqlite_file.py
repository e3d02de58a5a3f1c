"""A SQLite file that was removed or replaced: noticed at the next checkout, and told."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import exc, text

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.snapshots import FileLost
from tests.support.logs import logged
from tests.support.pools import pool_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession


def make_file(path: Path, title: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE papers (title text)")
        connection.execute("INSERT INTO papers VALUES (?)", (title,))


async def title_in(session: AsyncSession) -> str:
    return str(await session.scalar(text("SELECT title FROM papers")))


@pytest.fixture
def path(sqlite_url: str) -> Path:
    found = Path(sqlite_url.removeprefix("sqlite:///"))
    make_file(found, "old")
    return found


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    async with Database(DatabaseConfig(url=f"sqlite:///{path}", environment="test")) as database:
        yield database


def replace(path: Path) -> None:
    make_file(path.with_suffix(".new"), "new")
    path.with_suffix(".new").replace(path)


async def test_the_next_checkout_opens_the_file_that_is_there_now(
    database: Database, path: Path
) -> None:
    """So do those whose connection was in use, once they are back; it is told once."""
    async with database.session() as busy:
        assert await title_in(busy) == "old"
        async with database.read_session() as other:
            assert await title_in(other) == "old"
        replace(path)
        with logged("WARNING") as lines:
            async with database.read_session() as session:
                assert await title_in(session) == "new"
            await busy.rollback()
            for _ in range(3):
                assert await title_in(busy) == "new"
                await busy.rollback()
        assert len(lines) == 1
        assert f"was removed or replaced ({path})" in lines[0]
    assert database.activity.snapshot().warnings == {"file_lost": 1}
    assert database.activity.closed == {"lost": 1, "lifetime": 1}


async def test_a_file_that_was_removed_is_made_anew(database: Database, path: Path) -> None:
    async with database.session() as session:
        assert await title_in(session) == "old"
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        file.unlink(missing_ok=True)
    async with database.session() as session:
        with pytest.raises(exc.OperationalError, match="no such table"):
            await title_in(session)
    async with database.session() as session:
        await session.execute(text("CREATE TABLE papers (title text)"))
        await session.commit()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM papers").fetchone() == (0,)


async def test_health_says_so_for_a_while(database: Database, path: Path) -> None:
    assert (await database.health()).status == "healthy"
    assert pool_of(database.engine).checkedin() == 0
    async with database.session() as session:
        assert await title_in(session) == "old"
    replace(path)
    report = await database.health()
    assert (report.status, report.cause) == ("degraded", "file_lost")
    assert report.checks[2].name == "file"
    assert report.checks[2].detail == f"{path} was removed or replaced, noticed 0 s ago"
    database.activity.lost_file = FileLost(time.monotonic() - 300, str(path))
    assert (await database.health()).status == "healthy"


async def test_two_replacements_in_one_second_are_one_warning(
    database: Database, path: Path
) -> None:
    for _ in range(2):
        async with database.session() as session:
            await title_in(session)
        replace(path)
    async with database.session() as session:
        assert await title_in(session) == "new"
    assert database.activity.snapshot().warnings == {"file_lost": 1}


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
async def test_a_database_in_memory_has_no_other_file_in_its_place(url: str) -> None:
    async with Database(DatabaseConfig(url=url, environment="test")) as database:
        for _ in range(3):
            async with database.session() as session:
                await session.execute(text("SELECT 1"))
        assert database.activity.closed == {}
