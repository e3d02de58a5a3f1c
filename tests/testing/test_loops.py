"""The sandbox holds what an application does in whatever event loop it runs.

Each inner test finds an empty table, has the application commit a row, and sees it in its own
session. They run in an order of no meaning, so that each could be the one to leave something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.testing.conftest import Project

ARRANGEMENTS = """
import asyncio
import threading

import httpx
import pytest
from fastapi.testclient import TestClient as FastAPIClient
from litestar.testing import AsyncTestClient, TestClient
from starlette.testclient import TestClient as StarletteClient

from reviewpoint_db import Database, get_async_session
from tests.support.apps import TEXTS, add, fastapi_app, litestar_app, starlette_app, texts

APPS = [litestar_app, starlette_app, fastapi_app]
CLIENTS = [(litestar_app, TestClient), (starlette_app, StarletteClient), (fastapi_app, FastAPIClient)]


@pytest.fixture
def asgi():
    def client(app):
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
    return client


async def test_no_application(db_session):
    assert await texts(db_session) == []
    await add(db_session, "one")
    assert await texts(db_session) == ["one"]


@pytest.mark.parametrize(("make", "client"), CLIENTS)
def test_sync_client(db_session, make, client):
    with client(make()) as http:
        assert http.get("/notes").json() == []
        assert http.post("/notes/one").json() == ["one"]
        assert http.get("/notes").json() == ["one"]


@pytest.mark.parametrize(("make", "client"), CLIENTS)
async def test_sync_client_in_a_running_loop(db_session, make, client):
    with client(make()) as http:
        assert await texts(db_session) == []
        assert http.post("/notes/one").json() == ["one"]
        assert await texts(db_session) == ["one"]
        await add(db_session, "two")
        assert http.get("/notes").json() == ["one", "two"]


async def test_async_client_of_litestar(db_session):
    async with AsyncTestClient(litestar_app()) as http:
        assert await texts(db_session) == []
        assert (await http.post("/notes/one")).json() == ["one"]
        assert await texts(db_session) == ["one"]
        assert (await http.get("/read")).json() == ["one"]


@pytest.mark.parametrize("make", APPS)
async def test_asgi_transport(db_session, asgi, make):
    async with asgi(make()) as http:
        assert (await http.post("/notes/one")).json() == ["one"]
        assert await texts(db_session) == ["one"]


@pytest.mark.parametrize("make", APPS)
async def test_many_requests_at_once_take_turns(db_session, asgi, make):
    async with asgi(make()) as http:
        names = [f"{n:02}" for n in range(12)]
        answers = await asyncio.gather(*(http.post(f"/notes/{name}") for name in names))
    assert {answer.status_code for answer in answers} == {201}
    assert await texts(db_session) == names


async def test_background_task(db_session):
    async with AsyncTestClient(litestar_app()) as http:
        assert (await http.post("/later/one")).status_code == 201
    assert await texts(db_session) == ["one"]


async def test_functions_of_the_original_module(db_session):
    async with get_async_session() as session:
        assert await texts(session) == []
        await add(session, "one")
    assert await texts(db_session) == ["one"]


async def test_database_in_another_thread_with_a_loop_of_its_own(db_session):
    async def work():
        async with Database() as database, database.session() as session:
            await add(session, "one")

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert await texts(db_session) == ["one"]


application = litestar_app()


@pytest.fixture(scope="session")
def shared_client():
    with TestClient(application) as http:
        yield http


@pytest.mark.parametrize("n", range(3))
def test_client_that_outlives_its_tests(shared_client, db_session, n):
    assert shared_client.get("/notes").json() == []
    assert shared_client.post("/notes/one").json() == ["one"]


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("n", range(2))
async def test_loop_that_outlives_its_tests(db_session, asgi, n):
    async with asgi(application) as http:
        assert await texts(db_session) == []
        assert (await http.post("/notes/one")).json() == ["one"]


@pytest.mark.db
def test_marker_instead_of_a_fixture():
    with TestClient(litestar_app()) as http:
        assert http.post("/notes/one").json() == ["one"]
"""

ANYIO = """
import pytest
from litestar.testing import AsyncTestClient, TestClient

from tests.support.apps import add, litestar_app, texts

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def first(db_session):
    await add(db_session, "first")


@pytest.mark.parametrize("n", range(2))
async def test_fixture_and_application(db_session, first, n):
    async with AsyncTestClient(litestar_app()) as http:
        assert (await http.post("/notes/second")).json() == ["first", "second"]
    assert await texts(db_session) == ["first", "second"]


async def test_sync_client(db_session):
    assert await texts(db_session) == []
    with TestClient(litestar_app()) as http:
        assert http.post("/notes/one").json() == ["one"]
"""

COUNT = 1 + 3 + 3 + 1 + 3 + 3 + 1 + 1 + 1 + 3 + 2 + 1


def test_each_arrangement_of_loops_is_undone_in_any_order(project: Project) -> None:
    project.passes(ARRANGEMENTS, "--shuffled=1", count=COUNT)


def test_the_same_under_anyio_and_without_pytest_asyncio(project: Project) -> None:
    ini = project.pytester.path / "tox.ini"
    ini.write_text(
        "\n".join(line for line in ini.read_text().splitlines() if "asyncio" not in line)
    )
    project.passes(ANYIO, "-p", "no:asyncio", count=3)


def test_the_same_under_pytest_asyncio_that_is_strict(project: Project) -> None:
    test = """
    import pytest
    import pytest_asyncio

    from tests.support.apps import add, texts

    @pytest_asyncio.fixture
    async def first(db_session):
        await add(db_session, "first")

    @pytest.mark.asyncio
    @pytest.mark.parametrize("n", range(2))
    async def test_it(first, db_session, n):
        assert await texts(db_session) == ["first"]
    """
    project.passes(test, "-o", "asyncio_mode=strict", count=2)
