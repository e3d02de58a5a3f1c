"""Transactions that lost against another one are run again, and nothing else is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import CommitOutcomeUnknownError
from tests.support.notes import held, metadata, notes, stored, write, write_orphan
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(url=postgres_url)
    async with Database(config, metadata=metadata, create_all=True) as database:
        yield database


async def test_it_commits_and_returns_what_the_function_returned(database_url: str) -> None:
    async def work(session: AsyncSession) -> str:
        await write(session, "note")
        return "done"

    config = DatabaseConfig(url=database_url)
    async with Database(config, metadata=metadata, create_all=True) as database:
        assert await database.run_in_transaction(work) == "done"
        assert await stored(database) == ["note"]


async def test_write_skew_under_serializable_is_run_again(database: Database) -> None:
    """Ten transactions count the notes and store the number: each number exists once."""

    async def number(session: AsyncSession) -> None:
        count = await session.scalar(select(func.count()).select_from(notes))
        await asyncio.sleep(0.01)
        await write(session, str(count))

    await asyncio.gather(
        *(
            database.run_in_transaction(number, retries=50, isolation_level="SERIALIZABLE")
            for _ in range(5)
        )
    )
    assert await stored(database) == ["0", "1", "2", "3", "4"]
    assert held(database) == 0


@pytest.mark.parametrize("code", ["40001", "40P01"])
async def test_it_gives_up_after_so_many_retries(database: Database, code: str) -> None:
    runs = 0

    async def loses(session: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        await write(session, "note")
        await session.execute(text(f"DO $$ BEGIN RAISE SQLSTATE '{code}'; END $$"))

    with pytest.raises(DBAPIError):
        await database.run_in_transaction(loses, retries=2)
    assert runs == 3
    assert await stored(database) == []


async def test_other_errors_are_not_repeated(database: Database) -> None:
    runs = 0

    async def fails(session: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        await write_orphan(session)

    with pytest.raises(IntegrityError):
        await database.run_in_transaction(fails)
    assert runs == 1


async def test_what_the_function_committed_by_itself_is_not_repeated(database: Database) -> None:
    runs = 0

    async def commits_and_loses(session: AsyncSession) -> None:
        nonlocal runs
        runs += 1
        await write(session, f"note {runs}")
        await session.commit()
        await session.execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))

    with pytest.raises(DBAPIError):
        await database.run_in_transaction(commits_and_loses)
    assert await stored(database) == ["note 1"]
    assert held(database) == 0


async def test_a_commit_of_unknown_outcome_is_not_repeated(postgres_url: str) -> None:
    with Relay.to(postgres_url) as relay:
        config = DatabaseConfig(url=relay.url(postgres_url))
        async with Database(config, metadata=metadata, create_all=True) as database:
            relay.at("COMMIT;", "cut answer")
            with pytest.raises(CommitOutcomeUnknownError):
                await database.run_in_transaction(lambda session: write(session, "note"))
            assert await stored(database) == ["note"]
