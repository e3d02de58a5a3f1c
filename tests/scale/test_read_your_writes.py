"""A client reads what it wrote, by each adapter over HTTP, while the standby replays nothing."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import fastapi
import httpx
import litestar
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import reviewpoint_db.fastapi
import reviewpoint_db.litestar
import reviewpoint_db.starlette
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.fastapi import ReadSessionDep, SessionDep
from reviewpoint_db.litestar import ReviewPointDBPlugin
from reviewpoint_db.starlette import get_read_session, get_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.support.cluster import PostgresCluster
    from tests.support.run import Run

COUNT = text("SELECT count(*) FROM notes")
WAIT = 0.3


async def write(session: AsyncSession) -> None:
    await session.execute(text("INSERT INTO notes VALUES (1)"))
    await session.commit()


async def both(session: AsyncSession, reading: AsyncSession) -> list[Any]:
    """Read, write, and read in one request."""
    before = await reading.scalar(COUNT)
    await write(session)
    return [before, await reading.scalar(COUNT)]


def of_litestar(config: DatabaseConfig) -> tuple[Any, Database]:
    @litestar.post("/write")
    async def writing(db_session: reviewpoint_db.litestar.SessionDep) -> None:
        await write(db_session)

    @litestar.get("/read")
    async def reading(db_read_session: reviewpoint_db.litestar.ReadSessionDep) -> int:
        found: int = await db_read_session.scalar(COUNT)
        return found

    @litestar.post("/both")
    async def doing_both(
        db_session: reviewpoint_db.litestar.SessionDep,
        db_read_session: reviewpoint_db.litestar.ReadSessionDep,
    ) -> list[int]:
        return await both(db_session, db_read_session)

    plugin = ReviewPointDBPlugin(config)
    app = litestar.Litestar([writing, reading, doing_both], plugins=[plugin])
    return app, plugin.database


def of_starlette(config: DatabaseConfig) -> tuple[Any, Database]:
    async def writing(request: Request) -> JSONResponse:
        await write(get_session(request))
        return JSONResponse(None)

    async def reading(request: Request) -> JSONResponse:
        return JSONResponse(await get_read_session(request).scalar(COUNT))

    async def doing_both(request: Request) -> JSONResponse:
        return JSONResponse(await both(get_session(request), get_read_session(request)))

    app = Starlette(
        routes=[
            Route("/write", writing, methods=["POST"]),
            Route("/read", reading),
            Route("/both", doing_both, methods=["POST"]),
        ]
    )
    return app, reviewpoint_db.starlette.setup_database(app, config)


def of_fastapi(config: DatabaseConfig) -> tuple[Any, Database]:
    app = fastapi.FastAPI()

    @app.post("/write")
    async def writing(session: SessionDep) -> None:
        await write(session)

    @app.get("/read")
    async def reading(session: ReadSessionDep) -> int:
        found: int = await session.scalar(COUNT)
        return found

    @app.post("/both")
    async def doing_both(session: SessionDep, reading: ReadSessionDep) -> list[int]:
        return await both(session, reading)

    return app, reviewpoint_db.fastapi.setup_database(app, config)


@pytest.fixture(scope="module")
def cluster(run: Run) -> Iterator[PostgresCluster]:
    cluster = run.own_cluster("own_writes")
    cluster.start()
    cluster.create_database("papers")
    cluster.primary.psql("CREATE TABLE notes (id int)", "papers")
    yield cluster
    cluster.remove()


@pytest.fixture(params=[of_litestar, of_starlette, of_fastapi])
async def app(request: pytest.FixtureRequest, cluster: PostgresCluster) -> AsyncIterator[Any]:
    """An application whose standby has an empty table and replays nothing from now on."""
    cluster.primary.psql("TRUNCATE notes", "papers")
    cluster.catch_up()
    config = DatabaseConfig(
        url=cluster.primary.url("papers"),
        read_url=cluster.standbys[0].url("papers"),
        environment="test",
        max_replica_lag=60,
        read_your_writes=True,
        read_your_writes_secret="s" * 20,
        read_your_writes_wait=WAIT,
    )
    app, database = request.param(config)
    async with database:
        replicas = database.replicas
        assert replicas is not None
        await until(lambda: replicas.states()[0].state == "reading")
        cluster.pause_replay(1)
        try:
            yield app
        finally:
            cluster.resume_replay(1)


async def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_the_client_that_wrote_reads_it_and_others_read_the_replica(app: Any) -> None:
    async with client(app) as one, client(app) as other:
        written = await one.post("/write")
        assert written.status_code in {200, 201}
        started = time.monotonic()
        assert (await one.get("/read")).json() == 1
        assert WAIT * 0.9 < time.monotonic() - started < WAIT + 2
        assert (await other.get("/read")).json() == 0
        # A client without cookies brings the header back.
        name = "x-reviewpoint-db-default"
        brought = {name: written.headers[name]}
        assert (await other.get("/read", headers=brought)).json() == 1


async def test_a_request_reads_what_it_has_stored_itself(app: Any) -> None:
    async with client(app) as one:
        assert (await one.post("/both")).json() == [0, 1]
