"""When the database of a Litestar application starts, drains, tells of itself and stops."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from litestar import Litestar, get
from litestar.events import BaseEventEmitterBackend, listener
from litestar.plugins import InitPlugin
from sqlalchemy import text

from reviewpoint_db import default
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.litestar import ReviewPointDBPlugin, SessionDep
from tests.support.asgi import client, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar.config.app import AppConfig

    from reviewpoint_db.database import Database


@get("/")
async def answer(db_session: SessionDep) -> int:
    return int((await db_session.execute(text("select 42"))).scalar_one())


@pytest.fixture
def plugin(sqlite_url: str) -> ReviewPointDBPlugin:
    return ReviewPointDBPlugin(DatabaseConfig(url=sqlite_url))


async def ask(database: Database) -> int:
    async with database.session() as session:
        return int((await session.execute(text("select 1"))).scalar_one())


async def test_it_starts_first_and_stops_last(plugin: ReviewPointDBPlugin) -> None:
    """Lifespans, hooks and event listeners of the application and of other plugins use it."""
    seen: list[tuple[str, bool]] = []
    database = plugin.database

    async def note(moment: str) -> None:
        seen.append((moment, database.started and await ask(database) == 1))

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        await note("lifespan begins")
        yield
        await note("lifespan ends")

    async def on_startup() -> None:
        await note("on_startup")

    async def on_shutdown() -> None:
        await note("on_shutdown")

    @listener("paper.stored")
    async def on_event() -> None:
        await asyncio.sleep(0.01)
        await note("listener")

    class Later(InitPlugin):
        def on_app_init(self, app_config: AppConfig) -> AppConfig:
            async def hook() -> None:
                await note("another plugin's on_shutdown")

            app_config.on_shutdown.append(hook)
            return app_config

    app = Litestar(
        [answer],
        plugins=[plugin, Later()],
        lifespan=[lifespan],
        on_startup=[on_startup],
        on_shutdown=[on_shutdown],
        listeners=[on_event],
    )
    async with running(app):
        app.emit("paper.stored")
    assert [moment for moment, _ in seen] == [
        "lifespan begins",
        "on_startup",
        "lifespan ends",
        "listener",
        "on_shutdown",
        "another plugin's on_shutdown",
    ]
    assert all(usable for _, usable in seen)
    assert not database.started
    assert database.existing_engine is None


async def test_it_starts_again_after_its_stop(plugin: ReviewPointDBPlugin) -> None:
    app = Litestar([answer], plugins=[plugin])
    for _ in range(3):
        async with running(app), client(app) as http:
            assert (await http.get("/")).text == "42"
        assert not plugin.database.started


class _Mute(BaseEventEmitterBackend):
    """Litestar's own emitter belongs to one loop."""

    def emit(self, event_id: str, *args: Any, **kwargs: Any) -> None:
        """Tell nobody."""

    async def __aexit__(self, *_: object) -> None:
        """Nothing was begun."""


async def test_a_loop_that_ends_leaves_the_others_what_they_use(
    plugin: ReviewPointDBPlugin,
) -> None:
    """Two threads may serve an application, each with a loop of its own."""
    app = Litestar([answer], plugins=[plugin], event_emitter_backend=_Mute)
    database = plugin.database
    served, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with running(app), client(app) as http:
            assert (await http.get("/")).text == "42"
            served.set()
            assert await asyncio.to_thread(over.wait, 10)

    async with running(app):
        await ask(database)
        engine = database.engine
        other = asyncio.create_task(asyncio.to_thread(asyncio.run, serve()))
        assert await asyncio.to_thread(served.wait, 10)
    assert database.started
    assert not database.draining
    over.set()
    await other
    assert engine is not database.existing_engine
    assert not database.started


async def test_a_run_inside_of_another_of_its_loop_leaves_it_what_it_uses(
    plugin: ReviewPointDBPlugin,
) -> None:
    """A test client inside of a running application, say."""
    app = Litestar([answer], plugins=[plugin], event_emitter_backend=_Mute)
    async with running(app):
        engine = plugin.database.engine
        async with running(app), client(app) as http:
            assert (await http.get("/")).text == "42"
        assert plugin.database.existing_engine is engine
        async with client(app) as http:
            assert (await http.get("/")).text == "42"
    assert not plugin.database.started
    assert plugin.database.existing_engine is None


async def test_a_start_that_fails_half_way_leaves_nothing_behind(
    plugin: ReviewPointDBPlugin,
) -> None:
    async def fail() -> None:
        await ask(plugin.database)
        raise LookupError

    app = Litestar([answer], plugins=[plugin], on_startup=[fail])
    with pytest.raises(RuntimeError):
        async with running(app):
            raise AssertionError
    assert not plugin.database.started
    assert plugin.database.existing_engine is None


async def test_while_it_runs_it_is_the_process_wide_database(plugin: ReviewPointDBPlugin) -> None:
    app = Litestar([answer], plugins=[plugin])
    ended: list[Any] = []
    app.on_shutdown.insert(0, lambda: ended.append(default.engine))
    async with running(app):
        assert default.engine is plugin.database.engine
        engine = default.engine
    # Still in the application's own shutdown hooks, and no longer after them.
    assert ended == [engine]
    assert default.engine is not engine


async def test_it_tells_its_events_to_the_applications_listeners(
    plugin: ReviewPointDBPlugin,
) -> None:
    heard: list[Any] = []
    answers: list[int] = []

    @listener("db.started", "db.pool_exhausted", "db.leak", "db.stopped")
    async def hear(database: str, held: float | None = None) -> None:
        heard.append((database, held))
        answers.append(await ask(plugin.database))

    app = Litestar([answer], plugins=[plugin], listeners=[hear])
    async with running(app):
        # From another thread, as a database that two loops use tells of itself.
        await asyncio.to_thread(plugin.database.activity.emit, "db.leak", held=31)
    assert heard == [("default", None), ("default", 31), ("default", None)]
    assert answers == [1, 1, 1]


async def test_events_without_listeners_are_nothing(plugin: ReviewPointDBPlugin) -> None:
    async with running(Litestar([answer], plugins=[plugin])):
        plugin.database.activity.emit("db.leak")


async def test_sigterm_turns_readiness_off_while_requests_are_served(
    plugin: ReviewPointDBPlugin,
) -> None:
    seen: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        app = Litestar([answer], plugins=[plugin])
        async with running(app), client(app) as http:
            assert (await http.get("/db/health/ready")).status_code == 200
            os.kill(os.getpid(), signal.SIGTERM)
            ready = await http.get("/db/health/ready")
            assert (ready.status_code, ready.json()["reason"]) == (503, "draining")
            assert (await http.get("/")).text == "42"
            assert (await http.get("/db/health/live")).status_code == 200
    finally:
        signal.signal(signal.SIGTERM, former)
    assert seen == [signal.SIGTERM]


async def test_a_database_that_is_down_does_not_keep_the_application_from_starting() -> None:
    config = DatabaseConfig(
        url="postgresql://ann:secret@127.0.0.1:1/papers", environment="dev", retry_after=3.2
    )
    app = Litestar([answer], plugins=[ReviewPointDBPlugin(config)])
    async with running(app), client(app) as http:
        health = await http.get("/db/health")
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
        assert (await http.get("/db/health/ready")).status_code == 503
        assert (await http.get("/db/health/live")).status_code == 200
