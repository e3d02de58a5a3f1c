"""SQLAlchemy's warnings that name a key's value are stopped by the filter of the page on logging."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError, SAWarning
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database

PAGE = Path(__file__).parents[2] / "docs/how-to/logging.md"
KEY = 424242


class Base(DeclarativeBase):
    pass


class Paper(Base):
    __tablename__ = "papers"

    id: Mapped[int] = mapped_column(primary_key=True)


async def conflict(url: str) -> None:
    config = DatabaseConfig(url=url, environment="test")
    async with (
        Database(config, metadata=Base.metadata, create_all=True) as database,
        database.session() as session,
    ):
        first = Paper(id=KEY)
        session.add(first)
        await session.flush()
        session.add(Paper(id=KEY))
        with pytest.raises(IntegrityError) as caught:
            await session.flush()
        assert str(KEY) not in str(caught.value)
        await session.rollback()


@pytest.mark.parametrize("filtered", [False, True], ids=["as it is", "filtered"])
async def test_a_key_in_a_warning_is_stopped_by_the_pages_filter(
    sqlite_url: str, *, filtered: bool
) -> None:
    words = re.findall(r'"((?:New instance|Identity map)[^"]+)"', PAGE.read_text())
    assert len(words) == 2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for each in words if filtered else ():
            warnings.filterwarnings("ignore", message=each, category=SAWarning)
        await conflict(sqlite_url)
    said = [str(each.message) for each in caught if str(KEY) in str(each.message)]
    assert len(said) == (0 if filtered else 1)
    assert all(re.match(words[0], each) for each in said)
