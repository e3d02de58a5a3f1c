"""Assertions about statements, leaks and the test's database."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from reviewpoint_db import Database, DatabaseConfig, configure, default
from reviewpoint_db.testing import (
    assert_no_leak,
    assert_statements,
    log_test_database_state,
    verify_test_database,
)
from tests.support.logs import logged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.testing.conftest import Project


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(url=database_url, environment="test")
    async with Database(config) as database, database.session() as session:
        await session.execute(text("SELECT 1"))  # what a first connection asks for is over
        await session.rollback()
        yield database


async def select(database: Database, *numbers: int) -> None:
    async with database.session() as session:
        for number in numbers:
            await session.execute(text(f"SELECT {number}"))
        await session.commit()


async def test_statements_are_counted_without_what_is_around_them(database: Database) -> None:
    with assert_statements(2) as statements:
        await select(database, 1, 2)
    assert statements == ["SELECT 1", "SELECT 2"]
    with assert_statements(max=2):
        await select(database, 1, 2)


@pytest.mark.parametrize("limit", [{"exactly": 3}, {"max": 1}])
async def test_the_message_has_the_statements(database: Database, limit: dict[str, Any]) -> None:
    with (
        pytest.raises(AssertionError, match=r"^2 statements.*\n  1. SELECT 1\n  2. SELECT 2$"),
        assert_statements(**limit),
    ):
        await select(database, 1, 2)


async def test_a_leak_is_named(database: Database) -> None:
    session = database.open_session()
    with (
        pytest.raises(AssertionError, match=r"1 connection.* of database 'default'.*Held by: "),
        assert_no_leak(database),
    ):
        await session.execute(text("SELECT 1"))
    with assert_no_leak(database):  # what was out before does not count
        pass
    await database.end(session)
    with assert_no_leak(database):
        await select(database, 1)


async def test_the_test_database_is_verified_and_its_state_logged(database_url: str) -> None:
    configure(DatabaseConfig(url=database_url, environment="test"))
    try:
        await verify_test_database()
        with logged() as lines:
            log_test_database_state()
        assert any(
            re.search(r"Test DB state: .*'engine_initialized': True", line) for line in lines
        )
    finally:
        await default.stop()
        configure(None)


def test_the_debug_information_is_a_fixture(sqlite_project: Project) -> None:
    sqlite_project.passes("""
    async def test_it(db_session, db_debug_info):
        assert db_debug_info["pool_checked_out"] in (None, 0)
    """)
