"""Texts of SQLAlchemy's own that repeat what identifies an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import String, select
from sqlalchemy.exc import CompileError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.redaction import safe_error

if TYPE_CHECKING:
    from sqlalchemy.sql import ColumnElement

SECRET = "ann@example.org"


class Base(DeclarativeBase):
    """Of these tests."""


class Person(Base):
    """One whose address is her key."""

    __tablename__ = "people"

    address: Mapped[str] = mapped_column(String(100), primary_key=True)


async def test_a_conflict_of_identities_is_told_without_them(sqlite_url: str) -> None:
    async def load(session: AsyncSession) -> Person:
        return await session.get_one(Person, SECRET)

    config = DatabaseConfig(url=sqlite_url)
    async with Database(config, metadata=Base.metadata, create_all=True) as database:
        async with database.session() as session:
            session.add(Person(address=SECRET))
            await session.commit()
        async with database.session() as session:
            loaded = await load(session)
        async with database.session() as session:
            known = await load(session)
            with pytest.raises(InvalidRequestError, match="another instance with key") as caught:
                session.add(loaded)
    assert SECRET not in str(caught.value) + safe_error(caught.value)
    assert known.address == SECRET
    assert "another instance with key" in safe_error(caught.value)


def test_a_literal_is_not_told() -> None:
    class Unprintable:
        def __repr__(self) -> str:
            return SECRET

    compared: ColumnElement[bool] = Person.address == Unprintable()
    with pytest.raises(CompileError, match=SECRET) as caught:
        select(compared).compile(compile_kwargs={"literal_binds": True})
    assert SECRET not in safe_error(caught.value)
