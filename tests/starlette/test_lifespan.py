"""The database starts before the application's own lifespan and stops after it."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from reviewpoint_db import default
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.starlette import get_session, setup_database
from tests.support.asgi import client, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reviewpoint_db.database import Database


async def one(request: Request) -> JSONResponse:
    return JSONResponse(await get_session(request).scalar(text("select 1")))


class Recorder:
    """A lifespan that writes down what it finds."""

    def __init__(self) -> None:
        self.database: Database | None = None
        self.seen: list[Any] = []

    @asynccontextmanager
    async def __call__(self, app: Starlette) -> AsyncIterator[dict[str, str]]:
        assert self.database is not None
        self.seen.append(("start", self.database.started, await self._ask()))
        yield {"from": "the application"}
        self.seen.append(("stop", self.database.started, await self._ask()))

    async def _ask(self) -> Any:
        assert self.database is not None
        async with self.database.session() as session:
            return await session.scalar(text("select 1"))


EXPECTED = [("start", True, 1), ("stop", True, 1)]


async def test_the_applications_lifespan_runs_inside_of_ours(database_url: str) -> None:
    recorder = Recorder()
    app = Starlette(lifespan=recorder)
    recorder.database = database = setup_database(app, DatabaseConfig(url=database_url))
    async with running(app) as state:
        assert state == {"from": "the application"}
    assert recorder.seen == EXPECTED
    assert not database.started


async def test_a_lifespan_that_is_assigned_after_the_setup_does_too(sqlite_url: str) -> None:
    recorder = Recorder()
    app = Starlette()
    recorder.database = database = setup_database(app, DatabaseConfig(url=sqlite_url))
    app.router.lifespan_context = recorder
    async with running(app):
        pass
    assert recorder.seen == EXPECTED
    assert not database.started


async def test_a_lifespan_that_wraps_ours_does_too(sqlite_url: str) -> None:
    recorder = Recorder()
    app = Starlette()
    recorder.database = database = setup_database(app, DatabaseConfig(url=sqlite_url))
    ours = app.router.lifespan_context

    @asynccontextmanager
    async def theirs(app: Starlette) -> AsyncIterator[None]:
        async with recorder(app), ours(app):
            yield

    app.router.lifespan_context = theirs
    events: list[str] = []
    database.activity.subscribe(lambda event, data: events.append(event))
    async with running(app):
        pass
    assert recorder.seen == EXPECTED
    assert events == ["db.started", "db.stopped"]


async def test_it_starts_and_stops_as_often_as_the_application(database_url: str) -> None:
    app = Starlette(routes=[Route("/", one)])
    database = setup_database(app, DatabaseConfig(url=database_url))
    events: list[str] = []
    database.activity.subscribe(lambda event, data: events.append(event))
    for _ in range(3):
        async with running(app), client(app) as http:
            assert (await http.get("/")).json() == 1
    assert events == ["db.started", "db.stopped"] * 3


async def test_the_lifespan_may_be_run_without_the_application(sqlite_url: str) -> None:
    """As tests do it that enter `app.router.lifespan_context(app)`."""
    app = Starlette(routes=[Route("/", one)])
    database = setup_database(app, DatabaseConfig(url=sqlite_url))
    async with app.router.lifespan_context(app), client(app) as http:
        assert (await http.get("/db/health/ready")).status_code == 200
        assert (await http.get("/")).json() == 1
    assert not database.started


async def test_a_startup_that_fails_leaves_nothing_open(sqlite_url: str) -> None:
    @asynccontextmanager
    async def failing(app: Starlette) -> AsyncIterator[None]:
        if app.routes == []:
            raise LookupError("no such thing")
        yield

    app = Starlette(lifespan=failing)
    database = setup_database(app, DatabaseConfig(url=sqlite_url))
    with pytest.raises(RuntimeError, match="no such thing"):
        async with running(app):
            pass
    assert not database.started


async def test_while_it_runs_its_database_is_the_process_wide_one(sqlite_url: str) -> None:
    async def same(request: Request) -> JSONResponse:
        async with default.get_async_session() as session:
            await session.execute(text("select 1"))
        engine = default.engine
        return JSONResponse(engine is request.app.state.databases["default"].engine)

    app = Starlette(routes=[Route("/", same)])
    database = setup_database(app, DatabaseConfig(url=sqlite_url))
    async with running(app), client(app) as http:
        assert (await http.get("/")).json() is True
    assert database.activity.engines_created == 1


async def test_two_live_applications_cannot_both_have_the_default_database(
    sqlite_url: str, tmp_path: Any
) -> None:
    first, second = Starlette(), Starlette()
    setup_database(first, DatabaseConfig(url=sqlite_url))
    refused = setup_database(second, DatabaseConfig(url=f"sqlite:///{tmp_path}/other.sqlite3"))
    async with running(first):
        with pytest.raises(RuntimeError) as startup:
            async with running(second):
                pass
        assert isinstance(startup.value.__cause__, ConfigurationError)
    assert not refused.started


async def test_sigterm_turns_readiness_off_while_requests_still_work(sqlite_url: str) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        app = Starlette(routes=[Route("/", one)])
        setup_database(app, DatabaseConfig(url=sqlite_url))
        async with running(app), client(app) as http:
            assert (await http.get("/db/health/ready")).status_code == 200
            signal.raise_signal(signal.SIGTERM)
            assert (await http.get("/db/health/ready")).status_code == 503
            assert (await http.get("/")).json() == 1
        assert heard == [signal.SIGTERM]
        async with running(app), client(app) as http:
            assert (await http.get("/db/health/ready")).status_code == 200
    finally:
        signal.signal(signal.SIGTERM, before)


def test_two_threads_with_a_loop_each_may_run_it(database_url: str) -> None:
    app = Starlette(routes=[Route("/", one)])
    database = setup_database(app, DatabaseConfig(url=database_url))
    both = threading.Barrier(2, timeout=30)
    answers: list[Any] = []

    async def serve() -> None:
        async with running(app), client(app) as http:
            for _ in range(3):
                await asyncio.to_thread(both.wait)
                answers.append((await http.get("/")).json())
            await asyncio.to_thread(both.wait)

    threads = [threading.Thread(target=asyncio.run, args=(serve(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [1] * 6
    assert not database.started
