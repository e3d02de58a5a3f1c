"""Read sessions in what else a session can do: explicit transactions, changes inside of a SELECT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select, text

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ReadOnlySessionError
from tests.support.notes import held, metadata, notes, stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(url=database_url)
    async with Database(config, metadata=metadata, create_all=True) as made:
        yield made


async def test_a_block_of_begin_may_hold_several_statements(database: Database) -> None:
    """Its end is where its connection goes back."""
    async with database.read_session() as session:
        async with session.begin():
            assert await session.scalar(text("SELECT 1")) == 1
            assert await session.scalar(text("SELECT 2")) == 2
        assert held(database) == 0
        assert await session.scalar(text("SELECT 3")) == 3
        assert held(database) == 0


async def test_a_change_inside_of_a_select_is_refused(database: Database) -> None:
    """PostgreSQL would run it, and store it at once."""
    change = insert(notes).values(text="a note").returning(notes.c.id).cte()
    async with database.read_session() as session:
        with pytest.raises(ReadOnlySessionError):
            await session.execute(select(change))
        reading = select(notes.c.id).cte()
        assert (await session.scalars(select(reading.c.id))).all() == []
    assert await stored(database) == []
