"""Outages that a test makes, as its application sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.testing.conftest import Project

FAULTS = """
import time

import httpx
import pytest

from tests.support.apps import litestar_app, texts


@pytest.fixture
async def http(db_sandbox):
    transport = httpx.ASGITransport(litestar_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


async def test_dropped_connections_are_replaced(http, db_faults):
    assert (await http.post("/notes/one")).status_code == 201
    db_faults.drop_connections()
    assert (await http.get("/notes")).json() == ["one"]


async def test_dropped_in_the_middle_of_a_transaction(db_session, db_faults):
    from sqlalchemy.exc import OperationalError

    from reviewpoint_db import Database
    from tests.support.notes import write

    async with Database() as database:
        async with database.session() as session:
            await write(session, "one")
            db_faults.drop_connections()
            with pytest.raises(OperationalError):
                await write(session, "two")
        async with database.session() as session:
            assert await texts(session) == []
    assert await texts(db_session) == []


async def test_refused_connections_are_503(http, db_faults, monkeypatch):
    monkeypatch.setenv("REVIEWPOINT_DB_POOL_TIMEOUT", "3")
    transport = httpx.ASGITransport(litestar_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        with db_faults.refuse():
            answer = await http.get("/notes")
            assert answer.status_code == 503
            assert "retry-after" in answer.headers
        assert (await http.get("/notes")).json() == []


async def test_latency(http, db_faults):
    assert (await http.get("/notes")).status_code == 200
    with db_faults.latency(0.05):
        started = time.perf_counter()
        assert (await http.get("/notes")).status_code == 200
        assert time.perf_counter() - started >= 0.05


async def test_a_commit_that_fails(http, db_session, db_faults):
    db_faults.fail_commit()
    assert (await http.post("/notes/one")).status_code == 503
    assert await texts(db_session) == []
    assert (await http.post("/notes/one")).status_code == 201
    assert await texts(db_session) == ["one"]


async def test_a_commit_that_fails_is_run_again_where_the_application_asks_for_that(
    db_session, db_faults
):
    from reviewpoint_db import Database
    from tests.support.notes import write

    async with Database() as database:
        db_faults.fail_commit(2)
        await database.run_in_transaction(lambda session: write(session, "one"))
    assert await texts(db_session) == ["one"]
"""


def test_applications_meet_the_outages_of_their_tests(project: Project) -> None:
    project.passes(FAULTS, count=6)
