"""Applications inside of the one that was set up, which know nothing of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from sqlalchemy import text
from starlette.middleware import Middleware
from starlette.routing import Mount

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.fastapi import SessionDep, setup_database
from tests.support.asgi import client, running
from tests.support.logs import logged
from tests.support.notes import held

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


async def test_a_full_pool_is_a_503_in_them_too(sqlite_url: str) -> None:
    inner, deeper, app = FastAPI(), FastAPI(), FastAPI()

    async def ask(session: SessionDep) -> int:
        return int((await session.execute(text("SELECT 1"))).scalar_one())

    for one in (inner, deeper):
        one.get("/")(ask)
    pool = PoolConfig(size=1, max_overflow=0, timeout=0.1)
    database = setup_database(app, DatabaseConfig(url=sqlite_url, pool=pool))
    # Later than the setup: they are looked for when the application starts.
    app.mount("/inner", inner)
    app.router.routes.append(Mount("/below", routes=[Mount("/deeper", deeper)]))
    async with running(app), client(app) as http:
        for path in ("/inner/", "/below/deeper/"):
            assert (await http.get(path)).json() == 1
            async with database.session() as session:
                await session.execute(text("SELECT 1"))
                refused = await http.get(path)
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
        assert held(database) == 0


class Passing:
    """A middleware that does nothing, and keeps its application as `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on."""
        await self.app(scope, receive, send)


async def _ask(session: SessionDep) -> int:
    return int((await session.execute(text("SELECT 1"))).scalar_one())


def _asking() -> FastAPI:
    app = FastAPI()
    app.get("/")(_ask)
    return app


async def test_those_that_are_mounted_later_or_in_middlewares_answer_it_too(
    sqlite_url: str,
) -> None:
    app = FastAPI()
    pool = PoolConfig(size=1, max_overflow=0, timeout=0.1)
    database = setup_database(app, DatabaseConfig(url=sqlite_url, pool=pool))
    around = Mount("/around", _asking(), middleware=[Middleware(Passing), Middleware(Passing)])
    app.router.routes.append(around)
    app.mount("/wrapped", Passing(_asking()))
    endless = Passing(app)
    endless.app = endless  # no application is found in it, after a while
    app.mount("/endless", endless)
    async with running(app), client(app) as http:
        assert (await http.get("/around/")).json() == 1
        app.mount("/later", _asking())
        for path in ("/around/", "/wrapped/", "/later/"):
            async with database.session() as session:
                await session.execute(text("SELECT 1"))
                refused = await http.get(path)
            assert (path, refused.status_code) == (path, 503)
        assert held(database) == 0


async def test_one_that_has_served_before_is_named(sqlite_url: str) -> None:
    app, mounted = FastAPI(), FastAPI()
    setup_database(app, DatabaseConfig(url=sqlite_url))
    async with client(mounted) as http:
        assert (await http.get("/")).status_code == 404
    async with running(app), client(app) as http:
        assert (await http.get("/")).status_code == 404
        app.mount("/later", mounted)
        with logged("WARNING") as lines:
            for _ in range(2):
                assert (await http.get("/later/")).status_code == 404
    assert [line for line in lines if "FastAPI was mounted after it had served" in line] == lines
    assert len(lines) == 1
