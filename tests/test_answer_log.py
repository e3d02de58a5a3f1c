"""Answered errors in the log: each of them, and those of an outage by number, with their handlers."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import fastapi
import pytest
from litestar import Litestar, get
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from reviewpoint_db import answer_log
from reviewpoint_db.activity import Activity
from reviewpoint_db.answer_log import AnswerLog, log_answer
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.context import Origin, current_origin, current_units
from reviewpoint_db.database import Database
from reviewpoint_db.errors import DatabaseUnavailableError, PoolTimeoutError
from reviewpoint_db.fastapi import SessionDep
from reviewpoint_db.fastapi import setup_database as setup_fastapi
from reviewpoint_db.litestar import ReviewPointDBPlugin
from reviewpoint_db.litestar import SessionDep as LitestarSessionDep
from reviewpoint_db.starlette import get_session
from reviewpoint_db.starlette import setup_database as setup_starlette
from tests.support.asgi import client, running
from tests.support.logs import logged
from tests.support.pools import until
from tests.test_sqlstate import raised

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from tests.support.postgres import PostgresServer

    Made = tuple[Any, Database]

DOWN = DatabaseUnavailableError("The server is down.")
TOLD = "DatabaseUnavailableError: The server is down.\n"
FULL = PoolTimeoutError("All are in use.")
PAPERS, REVIEWS = Origin("GET /papers", "7"), Origin("POST /reviews")


# -- each by itself -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "level"), [(404, "INFO"), (409, "INFO"), (500, "ERROR"), (503, "WARNING")]
)
def test_the_level_of_an_answered_error_is_that_of_its_status(status: int, level: str) -> None:
    with logged() as lines:
        log_answer(ValueError(), status)
        token = current_origin.set("nightly import")
        log_answer(ValueError(), status)
        current_origin.reset(token)
    assert lines[0].startswith(f"{level}|A request answered with {status}: ValueError")
    assert lines[1].startswith(f"{level}|nightly import answered with {status}: ValueError")


def test_the_line_of_an_answered_error_names_the_way_out() -> None:
    with logged() as lines:
        log_answer(raised("42P01"), 500)
    assert "; has the schema been created?" in lines[0]


@pytest.mark.parametrize("status", [404, 409, 500])
async def test_what_no_outage_repeats_has_a_line_each(sqlite_url: str, status: int) -> None:
    async with Database(DatabaseConfig(url=sqlite_url, environment="test")) as database:
        unit = database.unit_of_work()
        token = current_units.set({"default": unit})
        with logged() as lines:
            for _ in range(3):
                log_answer(ValueError(), status)
        current_units.reset(token)
        await unit.release()
    assert len(lines) == 3


# -- by number ------------------------------------------------------------------------------------


def test_the_first_has_its_line_at_once_and_the_others_are_counted() -> None:
    answers = AnswerLog()
    with logged() as lines:
        answers.note(DOWN, 503, PAPERS)
        for origin in (PAPERS, REVIEWS, PAPERS, None):
            answers.note(DOWN, 503, origin)
        answers.tell_due()  # a watch looks every second
        assert lines == [f"WARNING|GET /papers [7] answered with 503: {TOLD}"]
        answers.tell()
        answers.tell()
    by = "2 GET /papers, 1 POST /reviews, 1 a request"
    assert lines[1:] == [f"WARNING|4 more answered with 503 within 0.0 s ({by}); the last: {TOLD}"]


def test_as_long_as_it_lasts_there_is_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(answer_log, "time", SimpleNamespace(monotonic=lambda: now))
    answers = AnswerLog()
    with logged() as lines:
        for _ in range(100):  # 25 seconds, with nobody who watches
            now += 0.25
            answers.note(DOWN, 503, PAPERS)
        assert [line.split(" answered")[0] for line in lines] == [
            "WARNING|GET /papers [7]",
            "WARNING|39 more",
            "WARNING|40 more",
        ]
        now += 10
        answers.tell_due()
        assert lines[3].startswith(
            "WARNING|20 more answered with 503 within 14.8 s (20 GET /papers)"
        )
        now += 10
        answers.tell_due()
        answers.note(DOWN, 503, PAPERS)  # the first again
    assert len(lines) == 5
    assert lines[4].startswith("WARNING|GET /papers [7] answered")


def test_each_kind_of_error_has_its_own_first_line() -> None:
    answers = AnswerLog()
    with logged() as lines:
        for _ in range(3):
            answers.note(DOWN, 503, PAPERS)
            answers.note(FULL, 503, PAPERS)
            answers.note(raised("57P01"), 503, PAPERS)
            answers.note(raised("28P01"), 500, PAPERS)
        assert len(lines) == 4
        answers.tell()
    assert len(lines) == 8
    assert lines[7].startswith("ERROR|2 more answered with 500 within ")
    assert "check user and password of the URL" in lines[7]


def test_handlers_are_bounded() -> None:
    answers = AnswerLog()
    with logged() as lines:
        for number in range(1001):
            answers.note(DOWN, 503, Origin(f"job {number}"))
        for _ in range(3):
            answers.note(DOWN, 503, PAPERS)
        answers.tell()
    assert lines[1].startswith("WARNING|1003 more answered")
    assert "(1 job 1, 1 job 2, 1 job 3, 1 job 4, 1 job 5, 998 others)" in lines[1]


def test_what_has_no_room_is_told_one_by_one() -> None:
    answers = AnswerLog()
    with logged() as lines:
        for number in range(60):
            for _ in range(2):
                answers.note(raised(f"57{number:03}"), 503, PAPERS)
    assert len(lines) == 50 + 10 * 2


def test_the_end_of_an_outage_is_told_after_what_it_did() -> None:
    activity = Activity("papers")
    with logged() as lines:
        activity.connection_failed("refused")
        for _ in range(3):
            activity.answers.note(DOWN, 503, PAPERS)
        activity.connection_opened(0.1)
    assert [line.split("|")[1].split(":")[0] for line in lines] == [
        "Database 'papers' is unreachable",
        "GET /papers [7] answered with 503",
        "2 more answered with 503 within 0.0 s (2 GET /papers); the last",
        lines[3].split("|")[1],
    ]
    assert "Database 'papers' answers again after" in lines[3]


async def test_the_watch_tells_of_those_after_whom_nobody_came(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_log, "_EVERY", 0.1)
    async with Database(DatabaseConfig(url=sqlite_url, environment="dev")) as database:
        with logged() as lines:
            database.activity.answers.note(DOWN, 503, PAPERS)
            database.activity.answers.note(DOWN, 503, PAPERS)
            await until(lambda: len(lines) == 2)
    assert "1 more answered with 503" in lines[1]


def test_in_tests_each_has_its_line(sqlite_url: str) -> None:
    answers = Database(DatabaseConfig(url=sqlite_url, environment="test")).activity.answers
    with logged() as lines:
        for _ in range(3):
            answers.note(DOWN, 503, PAPERS)
    assert lines == [f"WARNING|GET /papers [7] answered with 503: {TOLD}"] * 3


async def test_what_is_left_is_told_at_the_stop(sqlite_url: str) -> None:
    with logged() as lines:
        async with Database(DatabaseConfig(url=sqlite_url, environment="dev")) as database:
            database.activity.answers.note(DOWN, 503, PAPERS)
            database.activity.answers.note(DOWN, 503, PAPERS)
    assert any("1 more answered with 503" in line for line in lines)


# -- in the applications --------------------------------------------------------------------------


def _config(url: str) -> DatabaseConfig:
    return DatabaseConfig(url=url, environment="dev", pool=PoolConfig(timeout=0.2))


def _litestar(url: str) -> Made:
    @get("/papers")
    async def papers(db_session: LitestarSessionDep) -> None:
        await db_session.execute(text("select 1"))

    plugin = ReviewPointDBPlugin(_config(url))
    return Litestar([papers], plugins=[plugin]), plugin.database


def _starlette(url: str) -> Made:
    async def papers(request: Request) -> Response:
        await get_session(request).execute(text("select 1"))
        return Response()

    app = Starlette(routes=[Route("/papers", papers)])
    return app, setup_starlette(app, _config(url))


def _fastapi(url: str) -> Made:
    app = fastapi.FastAPI()

    @app.get("/papers")
    async def papers(session: SessionDep) -> None:
        await session.execute(text("select 1"))

    return app, setup_fastapi(app, _config(url))


@pytest.mark.parametrize("make", [_litestar, _starlette, _fastapi])
async def test_an_outage_has_a_handful_of_lines_however_many_ask(
    make: Callable[[str], Made], own_postgres: PostgresServer, own_url: str
) -> None:
    app, database = make(own_url)
    async with running(app), client(app) as http:
        own_postgres.stop("immediate")
        with logged("WARNING") as lines:
            for _ in range(20):
                answer = await http.get("/papers", headers={"x-request-id": "r7"})
                assert answer.status_code == 503
            # All but one, at the most, that had a connection of before.
            assert database.activity.snapshot().timed_out >= 19
            own_postgres.start()
            await until_served(http)
    answered = [line for line in lines if "answered with 503" in line]
    others = [line for line in answered if " more answered with 503 within " in line]
    first = next(line for line in answered if "DatabaseUnavailableError" in line)
    assert len([line for line in lines if "is unreachable" in line]) == 1
    # An older Starlette names a route by its function alone.
    assert first.startswith("WARNING|GET ")
    assert "papers" in first.partition(" [r7] answered with 503: DatabaseUnavailableError")[0]
    assert len(answered) - len(others) <= 2
    assert 1 <= len(others) <= 4  # a loaded machine takes more than ten seconds
    assert all(re.search(r"\d GET \S*papers", line) for line in others)


async def until_served(http: Any) -> None:
    for _ in range(100):
        if (await http.get("/papers")).status_code < 400:
            return
    raise AssertionError


@pytest.mark.parametrize("make", [_litestar, _starlette])
async def test_a_refused_password_has_a_handful_of_lines_too(
    make: Callable[[str], Made], own_postgres: PostgresServer, own_url: str
) -> None:
    name = own_url.rpartition("/")[2]
    url = own_postgres.url(name, user="nobody_knows", password="wrong")
    app, _ = make(url)
    with logged("WARNING") as lines:
        async with running(app), client(app) as http:
            for _ in range(20):
                assert (await http.get("/papers")).status_code == 500
    answered = [line for line in lines if "answered with 500" in line]
    assert 2 <= len(answered) <= 4
    assert " more answered with 500 within " in answered[1]
    assert "28" in answered[1]
