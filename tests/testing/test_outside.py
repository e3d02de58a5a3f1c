"""What lasts longer than a test is outside of every sandbox: it is refused, or it is told what it stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from tests.testing.conftest import Project

#: Uses the database from wherever it is called, as an application does.
USE = """
import asyncio
import unittest

import pytest
import pytest_asyncio
from reviewpoint_db import Database
from tests.support.apps import add, texts
from tests.support.notes import notes

async def store(text):
    async with Database() as database, database.session() as session:
        await add(session, text)

async def remove():
    async with Database() as database, database.session() as session:
        await session.execute(notes.delete())
        await session.commit()

async def look():
    async with Database() as database, database.session() as session:
        return await texts(session)
"""

#: Each of these stores a row before the first test of its module or class.
LASTING = (
    USE
    + """
def setup_module():
    asyncio.run(store("of the module"))

@pytest.fixture(scope="session")
def rows():
    asyncio.run(store("of the session"))

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def awaited_rows():
    await store("of the loop")

@pytest.mark.db
class TestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        asyncio.run(store("of the case"))

    def test_case(self):
        pass

class TestPlain:
    @classmethod
    def setup_class(cls):
        asyncio.run(store("of the class"))

    def test_class(self, db_sandbox):
        pass

def test_rows(rows, db_sandbox):
    pass

async def test_awaited(awaited_rows, db_sandbox):
    pass
"""
)

NAMES = (
    "setup_module of *",
    "The fixture rows (scope 'session')",
    "The fixture awaited_rows (scope 'module')",
    "setUpClass of TestCase",
    "setup_class of TestPlain",
)


def refused(name: str) -> str:
    return f"*DatabaseNotRequestedError: {name} touched the database outside of every *"


def test_where_that_is_set_it_is_refused_by_its_name(project: Project) -> None:
    for name in ("setup_module", "rest"):
        text = LASTING.replace("def setup_module", "def no_setup") if name == "rest" else LASTING
        project.write(f"test_{name}.py", text)
    result = project.run("-o", "db_strict=true", "test_rest.py")
    result.assert_outcomes(errors=4)
    for name in NAMES[1:]:
        result.stdout.fnmatch_lines([refused(name)])
    result.stdout.fnmatch_lines(["*come from `db_seed`*requests `db_session`*requests `db_url`*"])
    result = project.run("-o", "db_strict=true", "test_setup_module.py")
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines([refused(NAMES[0])])


def test_it_is_told_what_it_stored_once(project: Project) -> None:
    project.write("test_one.py", LASTING)
    project.write("test_two.py", LASTING.replace("of the", "of another"))
    result = project.run("-W", "default::pytest.PytestWarning")
    result.assert_outcomes(passed=8, warnings=result.parseoutcomes()["warnings"])
    told = result.stdout.str().count(" stored something outside of every test's sandbox")
    assert told == len(NAMES) + 1  # both modules have a setup_module
    for name in NAMES:
        line = f"*PytestWarning: {name} stored something outside of every test's sandbox*`db_seed`*"
        result.stdout.fnmatch_lines([line])


def test_who_asks_stores_rows_and_removes_them_without_a_word(
    project: Project, pytestconfig: pytest.Config
) -> None:
    test = (
        USE
        + """
@pytest.fixture(scope="session")
def application(db_config):
    return db_config

@pytest.fixture(scope="module")
def rows(application):
    asyncio.run(store("of the module"))
    yield
    asyncio.run(remove())

async def test_they_are_there(rows, db_session):
    assert await texts(db_session) == ["of the module"]

async def test_they_are_there_for_who_asks_for_them(rows):
    assert await look() == ["of the module"]

def test_the_last_of_the_module_asks_for_nothing():
    pass
"""
    )
    project.write("test_one.py", test)
    project.write("test_two.py", USE + "async def test_it(db_url): assert await look() == []")
    for strict in ("true", "false"):
        project.run("-o", f"db_strict={strict}").assert_outcomes(passed=4)


def test_the_end_of_who_does_not_ask_is_refused_too(project: Project) -> None:
    test = (
        USE
        + """
def teardown_module():
    asyncio.run(remove())

def test_it(db_sandbox):
    pass
"""
    )
    project.passes(test, "-o", "db_strict=true", errors=1)
    project.run("-o", "db_strict=true").stdout.fnmatch_lines([refused("setup_module of *")])
    project.passes(test)


def test_what_only_reads_or_is_undone_is_told_nothing(project: Project) -> None:
    test = (
        USE
        + """
@pytest.fixture(scope="module")
def readings():
    async def read():
        async with Database() as database, database.session() as session:
            async with session.begin_nested():
                await texts(session)
            await session.commit()
            await session.execute(notes.insert().values(text="undone"))
            await session.rollback()
            await texts(session)
            await session.commit()
    asyncio.run(read())

async def test_it(readings, db_session):
    assert await texts(db_session) == []
"""
    )
    project.passes(test)


def test_before_the_database_is_made_nobody_reaches_another_one(sqlite_project: Project) -> None:
    test = (
        USE
        + """
@pytest.fixture(scope="module")
def rows():
    asyncio.run(store("too early"))

def test_without_asking(rows):
    pass

async def test_it(db_session):
    assert await texts(db_session) == []
"""
    )
    sqlite_project.passes(test, errors=1)
    sqlite_project.run().stdout.fnmatch_lines([refused("The fixture rows (scope 'module')")])


def test_what_a_test_calls_for_in_its_middle_is_in_its_sandbox(project: Project) -> None:
    test = (
        USE
        + """
@pytest.fixture(scope="module")
def rows():
    asyncio.run(store("of the test"))

def test_it(request, db_sandbox):
    request.getfixturevalue("rows")
    assert asyncio.run(look()) == ["of the test"]

async def test_afterwards(db_session):
    assert await texts(db_session) == []
"""
    )
    project.passes(test, "-o", "db_strict=true", count=2)


def test_a_run_without_our_fixtures_is_not_told_of_its_own_database(
    sqlite_project: Project,
) -> None:
    test = (
        USE
        + """
@pytest.fixture(scope="module")
def rows():
    async def make():
        from tests.support.notes import metadata
        async with Database() as database, database.engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await store("its own")
    asyncio.run(make())

async def test_it(rows):
    assert await look() == ["its own"]
"""
    )
    sqlite_project.passes(test, "-o", "db_fail_on_leak=true")
