"""Where databases lead to: their engines are taken, of whatever pool, and in whatever loop they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from reviewpoint_db import Database, DatabaseConfig
from reviewpoint_db.testing.redirect import Redirect, Target
from reviewpoint_db.testing.thread import LoopThread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def redirect() -> Iterator[Redirect]:
    owner = LoopThread()
    redirect = Redirect(owner, Target(None))
    redirect.install()
    yield redirect
    redirect.remove()
    owner.stop()


async def file_of(database: Database) -> str:
    async with database.session() as session:
        row = (await session.execute(text("PRAGMA database_list"))).one()
    return str(row.file)


POOLS = pytest.mark.parametrize("options", [{}, {"poolclass": NullPool}], ids=["ours", "none"])


@POOLS
async def test_a_database_in_the_loop_of_who_redirects_is_led(
    redirect: Redirect, tmp_path: Path, options: dict[str, object]
) -> None:
    own, other = tmp_path / "own.sqlite3", tmp_path / "other.sqlite3"
    config = DatabaseConfig(url=f"sqlite:///{own}", engine_options=options)
    async with Database(config) as database:
        assert await file_of(database) == str(own)
        with redirect.to(Target(f"sqlite:///{other}")):
            assert await file_of(database) == str(other)
        assert await file_of(database) == str(own)


@POOLS
def test_a_database_whose_loop_stands_still_is_led(
    redirect: Redirect, tmp_path: Path, options: dict[str, object]
) -> None:
    own, other = tmp_path / "own.sqlite3", tmp_path / "other.sqlite3"
    database = Database(DatabaseConfig(url=f"sqlite:///{own}", engine_options=options))
    with asyncio.Runner() as runner:
        assert runner.run(file_of(database)) == str(own)
        with redirect.to(Target(f"sqlite:///{other}")):
            assert runner.run(file_of(database)) == str(other)
        assert runner.run(file_of(database)) == str(own)
        runner.run(database.stop())
