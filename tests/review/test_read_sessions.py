"""Read sessions in what else a session can do: explicit transactions, changes inside of a SELECT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import ForeignKey, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ReadOnlySessionError
from tests.support.notes import held, metadata, notes, stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession


class Base(DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "shelves"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str]
    books: Mapped[list[Book]] = relationship(back_populates="shelf")


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id"))
    shelf: Mapped[Shelf | None] = relationship(back_populates="books")


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


async def delete(session: AsyncSession) -> None:
    # Its flush would ask for the books first.
    await session.delete(await session.get_one(Shelf, 1))


async def add(session: AsyncSession) -> None:
    session.add(Book(id=2, shelf=await session.get_one(Shelf, 1)))


async def change(session: AsyncSession) -> None:
    (await session.get_one(Shelf, 1)).label = "changed"


async def move(session: AsyncSession) -> None:
    (await session.get_one(Book, 1)).shelf = None


@pytest.fixture
async def library(database_url: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(url=database_url)
    async with Database(config, metadata=Base.metadata, create_all=True) as made:
        async with made.session() as session:
            session.add(Shelf(id=1, label="first", books=[Book(id=1)]))
            await session.commit()
        yield made


@pytest.mark.parametrize("how", [delete, add, change, move])
@pytest.mark.parametrize("end", ["flush", "commit"])
@pytest.mark.parametrize("block", [False, True], ids=["", "begin"])
async def test_a_changed_object_is_refused_as_a_write(
    library: Database, how: Callable[[AsyncSession], Awaitable[None]], end: str, block: bool
) -> None:
    async with library.read_session() as session:
        if block:
            await session.begin()
        await how(session)
        with pytest.raises(ReadOnlySessionError, match="asked to write"):
            await getattr(session, end)()
    assert held(library) == 0
    async with library.session() as session:
        shelf = await session.get_one(Shelf, 1)
        book = await session.get_one(Book, 1)
        assert (shelf.label, book.shelf_id, await session.get(Book, 2)) == ("first", 1, None)


async def test_an_object_that_was_set_to_what_it_was_is_not_changed(library: Database) -> None:
    async with library.read_session() as session:
        shelf = await session.get_one(Shelf, 1)
        shelf.label = "first"
        assert session.dirty
        await session.flush()
        await session.commit()
        assert (shelf.label, held(library)) == ("first", 0)
