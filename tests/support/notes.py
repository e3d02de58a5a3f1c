"""A table for tests of requests: a note has a text that is unique, and may follow another note.

That the other one exists is checked at COMMIT, so an orphan makes COMMIT fail and nothing before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, insert, select

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from reviewpoint_db.database import Database

metadata = MetaData()
notes = Table(
    "notes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("text", String(100), unique=True, nullable=False),
    Column(
        "follows",
        Integer,
        ForeignKey("notes.id", deferrable=True, initially="DEFERRED"),
    ),
)


async def write(session: AsyncSession, text: str) -> None:
    """Inserts a note; nobody has committed it yet."""
    await session.execute(insert(notes).values(text=text))


async def write_orphan(session: AsyncSession, text: str = "orphan") -> None:
    """Inserts a note that makes COMMIT fail."""
    await session.execute(insert(notes).values(text=text, follows=999))


async def stored(database: Database) -> list[str]:
    """The texts of all notes that other sessions can see."""
    async with database.session() as session:
        return list(await session.scalars(select(notes.c.text).order_by(notes.c.text)))


def held(database: Database) -> int:
    """How many connections are out of the pool."""
    return database.debug_info()["pool_checked_out"] or 0
