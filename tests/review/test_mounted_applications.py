"""Applications inside of the one that was set up, which know nothing of the database."""

from __future__ import annotations

from fastapi import FastAPI
from sqlalchemy import text
from starlette.routing import Mount

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.fastapi import SessionDep, setup_database
from tests.support.asgi import client, running
from tests.support.notes import held


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
