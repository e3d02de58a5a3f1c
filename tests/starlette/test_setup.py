"""`setup_database`: what one call gives, what it refuses, and where its routes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from litestar import Litestar
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, Router

from reviewpoint_db import fastapi, logs
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.starlette import get_read_session, get_session, setup_database
from tests.support.asgi import client, running

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import ASGIApp, Receive, Scope, Send


async def answer(request: Request) -> JSONResponse:
    session = get_session(request)
    return JSONResponse({"answer": (await session.execute(text("select 42"))).scalar_one()})


@pytest.fixture
def app() -> Starlette:
    return Starlette(routes=[Route("/", answer)])


async def test_without_any_configuration_it_runs_on_an_embedded_file(
    app: Starlette, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("REVIEWPOINT_DB_URL", "DATABASE_URL", "REVIEWPOINT_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    database = setup_database(app)
    async with running(app), client(app) as http:
        assert (await http.get("/")).json() == {"answer": 42}
        assert (await http.get("/db/health")).json()["status"] == "healthy"
        assert (await http.get("/db/health/live")).status_code == 200
        assert (await http.get("/db/health/ready")).status_code == 200
        assert (await http.head("/db/health")).status_code == 200
        debug = (await http.get("/db/debug")).json()
    assert debug["engine_creation_count"] == 1
    assert (tmp_path / "reviewpoint.sqlite3").exists()
    assert app.state.databases == {"default": database}


async def test_the_same_program_runs_on_postgresql(app: Starlette, postgres_url: str) -> None:
    setup_database(app, DatabaseConfig(url=postgres_url))
    async with running(app), client(app) as http:
        assert (await http.get("/")).json() == {"answer": 42}


async def test_it_lets_the_log_lines_through(
    app: Starlette, sqlite_url: str, lines: list[str]
) -> None:
    logs.disable()
    setup_database(app, DatabaseConfig(url=sqlite_url))
    async with running(app), client(app) as http:
        await http.get("/")
    assert lines


async def test_two_databases_live_in_one_application(sqlite_url: str, postgres_url: str) -> None:
    async def both(request: Request) -> JSONResponse:
        one = await get_session(request).scalar(text("select sqlite_version()"))
        two = await get_session(request, "reports").scalar(text("select version()"))
        three = await get_read_session(request, "reports").scalar(text("select 3"))
        return JSONResponse([one, two.split()[0], three])

    app = Starlette(routes=[Route("/", both)])
    first = setup_database(app, DatabaseConfig(url=sqlite_url))
    second = setup_database(
        app, DatabaseConfig(url=postgres_url, name="reports"), path="/reports-db"
    )
    async with running(app), client(app) as http:
        answers = (await http.get("/")).json()
        assert answers[1:] == ["PostgreSQL", 3]
        assert (await http.get("/db/debug")).json()["name"] == "default"
        assert (await http.get("/reports-db/debug")).json()["name"] == "reports"
    assert app.state.databases == {"default": first, "reports": second}


def test_two_of_one_name_are_refused_and_both_are_named(app: Starlette) -> None:
    setup_database(app, DatabaseConfig(url="postgresql://ann:secret@localhost/papers"))
    with pytest.raises(ConfigurationError) as refusal:
        setup_database(app, DatabaseConfig(url="sqlite:///other.sqlite3"), path=None)
    text = str(refusal.value)
    assert "same name" in text
    assert "postgresql://ann:***@localhost/papers, at /db" in text
    assert "other.sqlite3, without routes" in text
    assert "secret" not in text


def test_two_at_one_path_are_refused_and_both_are_named(app: Starlette) -> None:
    setup_database(app, DatabaseConfig(url="sqlite:///one.sqlite3"))
    with pytest.raises(ConfigurationError, match=r"same path.*'default'.*'reports'"):
        setup_database(app, DatabaseConfig(url="sqlite:///two.sqlite3", name="reports"))


async def test_an_application_that_started_is_refused(app: Starlette, sqlite_url: str) -> None:
    async with running(app):
        with pytest.raises(ConfigurationError, match="started already"):
            setup_database(app, DatabaseConfig(url=sqlite_url))


def test_a_typo_in_who_commits_is_refused(app: Starlette, sqlite_url: str) -> None:
    commit: Any = "auto"
    with pytest.raises(ConfigurationError, match="commit = 'auto': unknown"):
        setup_database(app, DatabaseConfig(url=sqlite_url), commit=commit)


def test_what_is_no_configuration_is_refused(app: Starlette) -> None:
    config: Any = "postgresql://ann:s3cret@host/db"
    with pytest.raises(ConfigurationError, match=r"give DatabaseConfig\(url=\.\.\.\)") as refused:
        setup_database(app, config)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("argument", "value", "problem"),
    [
        (
            "app",
            None,
            "app = a NoneType: not a Starlette or FastAPI application. Fix: give the appl",
        ),
        ("app", Router(), "give the application itself, not a router and not what wraps it."),
        (
            "app",
            Starlette,
            "app = the class Starlette: not a Starlette or FastAPI application. Fix: ",
        ),
        ("app", DatabaseConfig(url="sqlite://"), "application first: setup_database(app, config)."),
        ("app", Litestar([]), "Fix: Litestar(..., plugins=[ReviewPointDBPlugin()]) does the same"),
        ("guards", answer, "guards = a function: not a list. Fix: give a list: guards=[...]."),
        ("guards", {"answer": 1}.values(), "guards = a dict_values with a int: not callable."),
        ("debug_token", 3, "debug_token = a int: not a string."),
        ("migrations", 3, "migrations = a int: not the name of a folder."),
        (
            "metadata",
            MetaData,
            "metadata = a type: not a MetaData. Fix: give a sqlalchemy.MetaData.",
        ),
    ],
)
@pytest.mark.parametrize("setup", [setup_database, fastapi.setup_database])
def test_an_argument_of_the_wrong_kind_is_refused(
    app: Starlette, setup: Any, argument: str, value: Any, problem: str
) -> None:
    arguments = {"app": app, "config": DatabaseConfig(url="sqlite://")} | {argument: value}
    with pytest.raises(ConfigurationError) as refused:
        setup(**arguments)
    assert problem in str(refused.value)


@pytest.mark.parametrize("path", ["db", "/db/{name}", ""])
def test_a_path_that_is_none_is_refused(app: Starlette, path: str) -> None:
    with pytest.raises(ConfigurationError, match="no place for routes"):
        setup_database(app, DatabaseConfig(url="sqlite:///one.sqlite3"), path=path)


async def test_routes_may_be_elsewhere_or_nowhere(sqlite_url: str) -> None:
    for path, found in (("/", "/health"), ("/a/b/", "/a/b/health"), (None, None)):
        app = Starlette()
        setup_database(app, DatabaseConfig(url=sqlite_url), path=path)
        async with running(app), client(app) as http:
            assert (await http.get("/db/health")).status_code == 404
            if found:
                assert (await http.get(found)).status_code == 200


async def test_the_session_class_may_be_named_here(sqlite_url: str) -> None:
    class Mine(AsyncSession):
        pass

    async def kind(request: Request) -> JSONResponse:
        return JSONResponse(isinstance(get_session(request), Mine))

    app = Starlette(routes=[Route("/", kind)])
    setup_database(app, DatabaseConfig(url=sqlite_url), session_class=Mine)
    async with running(app), client(app) as http:
        assert (await http.get("/")).json() is True


def test_the_session_class_is_added_to_the_configuration_of_the_environment(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(AsyncSession):
        pass

    monkeypatch.setenv("REVIEWPOINT_DB_URL", "sqlite:///from-env.sqlite3")
    database = setup_database(app, session_class=Mine)
    assert database.config.session_class is Mine
    assert "from-env" in database.config.safe_url


def test_without_a_setup_the_error_names_the_way_out() -> None:
    with pytest.raises(ConfigurationError, match="setup_database"):
        get_session(HTTPConnection({"type": "http"}))


# Routes


class RefuseAll:
    """A middleware that lets nobody in, as a broken authentication does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        await PlainTextResponse("who are you?", status_code=401)(scope, receive, send)


@pytest.mark.parametrize("late", [False, True])
async def test_our_routes_are_no_business_of_the_applications_middleware(
    sqlite_url: str, late: bool
) -> None:
    app = Starlette(middleware=[] if late else [Middleware(RefuseAll)])
    setup_database(app, DatabaseConfig(url=sqlite_url))
    if late:
        app.add_middleware(RefuseAll)
    async with running(app), client(app) as http:
        assert (await http.get("/anything")).status_code == 401
        for path in ("/db/health", "/db/health/live", "/db/health/ready", "/db/debug"):
            assert (await http.get(path)).status_code == 200


async def test_the_applications_own_routes_below_the_path_stay_reachable(sqlite_url: str) -> None:
    async def mine(request: Request) -> Response:
        return PlainTextResponse("mine")

    app = Starlette(routes=[Route("/db/mine", mine), Route("/db/health", mine, methods=["POST"])])
    setup_database(app, DatabaseConfig(url=sqlite_url))
    async with running(app), client(app) as http:
        assert (await http.get("/db/mine")).text == "mine"
        assert (await http.post("/db/health")).text == "mine"
        assert (await http.get("/db/health")).json()["status"] == "healthy"
        assert (await http.head("/db/health")).status_code == 200
        assert (await http.get("/db/other")).status_code == 404


async def test_routes_of_a_mounted_application_are_below_its_own_path(sqlite_url: str) -> None:
    inner = Starlette(routes=[Route("/", answer)])
    setup_database(inner, DatabaseConfig(url=sqlite_url))
    outer = Starlette(routes=[Mount("/inner", inner)])
    async with running(outer), client(outer) as http:
        assert (await http.get("/inner/")).json() == {"answer": 42}
        assert (await http.get("/inner/db/health")).json()["status"] == "healthy"
        # Nobody runs the lifespan of a mounted application.
        assert (await http.get("/inner/db/health/ready")).status_code == 503
    await inner.state.databases["default"].stop()


async def test_in_production_debug_is_not_there_until_somebody_guards_it(sqlite_url: str) -> None:
    config = DatabaseConfig(url=sqlite_url, environment="prod")
    app = Starlette()
    setup_database(app, config)
    async with running(app), client(app) as http:
        assert (await http.get("/db/debug")).status_code == 404
        assert (await http.get("/db/health")).json() == {
            "status": "healthy",
            "service": "database",
        }


async def test_the_page_is_there_with_and_without_a_slash_but_never_at_the_root(
    sqlite_url: str,
) -> None:
    for path in ("/db", "/"):
        app = Starlette(routes=[Route("/", answer)])
        setup_database(app, DatabaseConfig(url=sqlite_url), path=path)
        async with running(app), client(app) as http:
            assert (await http.get("/")).json() == {"answer": 42}
            if path == "/db":
                for where in ("/db", "/db/"):
                    page = await http.get(where)
                    assert page.headers["content-type"] == "text/html; charset=utf-8"
            live = (await http.get(f"{path.rstrip('/')}/debug/live")).json()
            assert live["workers_note"].startswith("This is the only worker")


async def test_a_token_opens_debug(sqlite_url: str) -> None:
    app = Starlette()
    config = DatabaseConfig(url=sqlite_url, environment="prod")
    setup_database(app, config, debug_token="open-sesame")
    async with running(app), client(app) as http:
        assert (await http.get("/db/debug")).status_code == 401
        assert (await http.get("/db/debug", auth=("", "open-sesame"))).status_code == 200


def must_be_local(request: Request) -> None:
    if request.headers.get("x-from") != "here":
        raise HTTPException(403, "not from here")


async def must_have_a_working_session(request: Request) -> None:
    assert await get_session(request).scalar(text("select 1")) == 1


async def test_guards_stand_before_debug_and_refuse_in_the_applications_way(
    sqlite_url: str,
) -> None:
    async def shaped(request: Request, error: Any) -> Response:
        return JSONResponse({"problem": error.detail}, status_code=error.status_code)

    app = Starlette(exception_handlers={HTTPException: shaped})
    config = DatabaseConfig(url=sqlite_url, environment="prod")
    setup_database(app, config, guards=[must_be_local, must_have_a_working_session])
    async with running(app), client(app) as http:
        refused = await http.get("/db/debug")
        assert (refused.status_code, refused.json()) == (403, {"problem": "not from here"})
        let_in = await http.get("/db/debug", headers={"x-from": "here"})
        assert (let_in.status_code, let_in.json()["pool_checked_out"]) == (200, 1)
        assert app.state.databases["default"].debug_info()["pool_checked_out"] == 0
