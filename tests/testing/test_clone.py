"""Databases of a test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.postgres import RemoteServer
    from tests.testing.conftest import Project

CLONES = """
import asyncio
import threading

import pytest
from litestar.testing import AsyncTestClient, TestClient

from reviewpoint_db import Database, DatabaseConfig, PoolConfig
from tests.support.apps import add, litestar_app, texts
from tests.support.notes import write


@pytest.fixture(scope="session")
def db_seed():
    return lambda session: add(session, "seed")


@pytest.mark.parametrize("n", range(2))
async def test_real_commits_on_several_connections(db_clone, n):
    async with Database() as database:
        async with database.session() as one, database.session() as two:
            await write(one, "one")
            async with database.read_session() as reader:
                assert await texts(reader) == ["seed"]
            await one.commit()
            await add(two, "two")
            assert await texts(two) == ["one", "seed", "two"]


def test_applications_land_there(db_clone):
    with TestClient(litestar_app()) as http:
        assert http.post("/notes/one").json() == ["one", "seed"]


async def test_settings_of_the_application_stay(db_clone):
    config = DatabaseConfig(
        url="postgresql://nowhere/none",
        read_url="postgresql://nowhere/replica",
        pool=PoolConfig(size=3, max_overflow=0),
        environment="prod",
        engine_options={"echo": False, "connect_args": {"server_settings": {"search_path": "public"}}},
    )
    async with Database(config) as database, database.session() as session:
        assert await texts(session) == ["seed"]
        assert database.config.effective_pool.size == 3
        assert database.config.environment == "prod"
        assert database.config.read_url is None


application = Database()


async def test_what_is_not_stopped_is_cut(db_clone):
    async with application.session() as session:
        await add(session, "one")


def test_what_runs_in_another_thread_is_closed(db_clone):
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def use():
        async with application.session() as session:
            await add(session, "one")

    asyncio.run_coroutine_threadsafe(use(), loop).result(10)
    loops.append((loop, thread))


loops = []


def test_afterwards():
    loop, thread = loops.pop()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def test_the_worker_s_database_is_untouched(db_session):
    assert await texts(db_session) == ["seed"]
"""


def test_a_clone_is_a_database_with_real_commits(project: Project) -> None:
    project.passes(CLONES, count=8)


def test_no_clone_is_left(
    postgres_project: Project, postgres: RemoteServer, postgres_url: str
) -> None:
    test = """
    import pytest

    @pytest.mark.parametrize("n", range(2))
    def test_it(db_clone, n):
        assert not n
    """
    postgres_project.write("test_it.py", test)
    postgres_project.run().assert_outcomes(passed=1, failed=1)
    name = f"test_{postgres_url.rpartition('/')[2]}"[:40]
    assert [one for one in postgres.databases() if one.startswith(name)] == []


def test_a_sandbox_and_a_clone_are_not_one(sqlite_project: Project) -> None:
    sqlite_project.write("test_it.py", "def test_it(db_clone, db_session): pass")
    result = sqlite_project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*asks for db_clone and for the sandbox*"])
