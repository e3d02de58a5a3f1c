"""`setup_database` for FastAPI: its routes, schema, dependencies and lifespan."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from sqlalchemy import text

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.fastapi import SessionDep, setup_database
from tests.support.asgi import client, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def nobody() -> None:
    raise HTTPException(401)


async def test_our_routes_are_no_business_of_the_application(sqlite_url: str) -> None:
    app = FastAPI(dependencies=[Depends(nobody)])
    setup_database(app, DatabaseConfig(url=sqlite_url))
    seen: list[str] = []

    @app.middleware("http")
    async def hook(request: Any, call_next: Any) -> Any:
        seen.append(request.url.path)
        return await call_next(request)

    @app.get("/")
    async def index() -> None: ...

    async with running(app), client(app) as http:
        assert (await http.get("/")).status_code == 401
        for path in ("/db/health", "/db/health/live", "/db/health/ready", "/db/debug"):
            assert (await http.get(path)).status_code == 200
        schema = (await http.get("/openapi.json")).json()
    assert seen == ["/", "/openapi.json"]
    assert list(schema["paths"]) == ["/"]


def password(x_password: Annotated[str, Header()]) -> str:
    return x_password


async def admins_only(given: Annotated[str, Depends(password)], session: SessionDep) -> None:
    if given != await session.scalar(text("select 'secret'")):
        raise HTTPException(403, "admins only")


@pytest.mark.parametrize("guard", [admins_only, Depends(admins_only)])
async def test_guards_are_dependencies(sqlite_url: str, guard: Any) -> None:
    app = FastAPI()
    config = DatabaseConfig(url=sqlite_url, environment="prod")
    setup_database(app, config, guards=[guard])
    async with running(app), client(app) as http:
        assert (await http.get("/db/debug")).status_code == 422
        refused = await http.get("/db/debug", headers={"x-password": "wrong"})
        assert (refused.status_code, refused.json()) == (403, {"detail": "admins only"})
        let_in = await http.get("/db/debug", headers={"x-password": "secret"})
        assert (let_in.status_code, let_in.json()["name"]) == (200, "default")
        app.dependency_overrides[password] = lambda: "secret"
        assert (await http.get("/db/debug")).status_code == 200
        assert (await http.head("/db/debug")).status_code == 200
        assert app.state.databases["default"].debug_info()["pool_checked_out"] == 0


async def test_without_guards_debug_is_not_there_in_production(sqlite_url: str) -> None:
    app = FastAPI()
    setup_database(app, DatabaseConfig(url=sqlite_url, environment="prod"))
    async with running(app), client(app) as http:
        assert (await http.get("/db/debug")).status_code == 404


def test_two_of_one_name_are_refused() -> None:
    app = FastAPI()
    setup_database(app, DatabaseConfig(url="sqlite:///one.sqlite3"))
    with pytest.raises(ConfigurationError, match="same name"):
        setup_database(app, DatabaseConfig(url="sqlite:///two.sqlite3"), path="/two")


async def test_events_and_the_lifespans_of_routers_run_inside_of_ours(sqlite_url: str) -> None:
    seen: list[tuple[str, bool]] = []

    def see(what: str) -> None:
        seen.append((what, database.started))

    @asynccontextmanager
    async def of_the_router(app: FastAPI) -> AsyncIterator[None]:
        see("router starts")
        yield
        see("router stops")

    app = FastAPI()
    app.router.add_event_handler("startup", lambda: see("app starts"))
    app.router.add_event_handler("shutdown", lambda: see("app stops"))
    database = setup_database(app, DatabaseConfig(url=sqlite_url))
    app.include_router(APIRouter(lifespan=of_the_router))
    for _ in range(2):
        seen.clear()
        async with running(app), client(app) as http:
            assert (await http.get("/db/health/ready")).status_code == 200
        assert seen == [
            ("app starts", True),
            ("router starts", True),
            ("router stops", True),
            ("app stops", True),
        ]
        assert not database.started
