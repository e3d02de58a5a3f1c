"""What becomes of a request's transaction, and what the client is told of it."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, cast

import pytest
from litestar import Litestar, get
from litestar import Request as LitestarRequest
from litestar import Response as LitestarResponse
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

from reviewpoint_db.asgi import unit_of
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.context import describe_origin
from reviewpoint_db.errors import (
    CommitOutcomeUnknownError,
    ReadOnlySessionError,
    SessionClosedError,
)
from reviewpoint_db.starlette import (
    answer_database_error,
    get_read_session,
    get_session,
    setup_database,
)
from tests.support.asgi import WebSocketClient, client, request, running
from tests.support.notes import held, metadata, stored, write, write_orphan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncSession
    from starlette.websockets import WebSocket

    from reviewpoint_db.database import Database

NO_CONTENT = b""


class RedirectError(Exception):
    """Answered by an exception handler with a redirect."""


async def note(conn: Request) -> Response:
    await write(get_session(conn), conn.query_params.get("text", "a note"))
    return Response(NO_CONTENT, status_code=int(conn.query_params.get("status", "201")))


async def note_and_commit(conn: Request) -> Response:
    session = get_session(conn)
    await write(session, conn.query_params.get("text", "a note"))
    await session.commit()
    return Response(NO_CONTENT, status_code=201)


async def note_and_fail(conn: Request) -> Response:
    await write(get_session(conn), "a note")
    raise HTTPException(418, "no coffee")


async def orphan(conn: Request) -> Response:
    await write_orphan(get_session(conn))
    return Response(NO_CONTENT, status_code=201, headers={"x-made-by": "the handler"})


async def orphan_and_commit(conn: Request) -> Response:
    session = get_session(conn)
    await write_orphan(session)
    await session.commit()
    return Response(NO_CONTENT, status_code=201)


async def missing_table(conn: Request) -> Response:
    await get_session(conn).execute(text("select * from papyri"))
    raise AssertionError


ROUTES = [
    Route("/note", note),
    Route("/note-and-commit", note_and_commit),
    Route("/note-and-fail", note_and_fail),
    Route("/orphan", orphan),
    Route("/orphan-and-commit", orphan_and_commit),
    Route("/missing-table", missing_table),
]


def make(
    url: str, *, commit: Any = "autocommit", pool: PoolConfig | None = None, **settings: Any
) -> tuple[Starlette, Database]:
    """An application with all handlers of this file, and its database."""
    routes = [*ROUTES, *settings.pop("routes", ())]
    app = Starlette(routes=routes, **settings)
    config = DatabaseConfig(url=url, pool=pool)
    database = setup_database(app, config, commit=commit, metadata=metadata, create_all=True)
    return app, database


# Commit and rollback


@pytest.mark.parametrize(
    ("commit", "path", "kept"),
    [
        ("manual", "/note", []),
        ("manual", "/note-and-commit", ["a note"]),
        ("manual", "/note-and-fail", []),
        ("autocommit", "/note", ["a note"]),
        ("autocommit", "/note?status=303", ["a note"]),
        ("autocommit", "/note?status=409", []),
        ("autocommit", "/note-and-commit", ["a note"]),
        ("autocommit", "/note-and-fail", []),
    ],
)
async def test_who_commits(database_url: str, commit: str, path: str, kept: list[str]) -> None:
    app, database = make(database_url, commit=commit)
    async with running(app), client(app) as http:
        await http.get(path)
        assert await stored(database) == kept
        assert held(database) == 0


async def test_the_row_is_there_before_the_first_byte_leaves(database_url: str) -> None:
    app, database = make(database_url)
    seen: list[list[str]] = []

    async def look(message: Any) -> None:
        seen.append(await stored(database))

    async with running(app):
        await request(app, "/note", on_message=look)
    assert seen == [["a note"], ["a note"]]


# Errors


@pytest.mark.parametrize("path", ["/orphan", "/orphan-and-commit"])
async def test_a_commit_that_fails_is_a_conflict_in_starlettes_own_shape(
    database_url: str, path: str
) -> None:
    app, database = make(database_url)
    async with running(app), client(app) as http:
        answer = await http.get(path)
        assert answer.status_code == 409
        assert answer.headers["content-type"].startswith("text/plain")
        assert "x-made-by" not in answer.headers
        assert "notes" not in answer.text
        assert await stored(database) == []
        assert held(database) == 0


async def shows_the_class(conn: Request, error: Exception) -> Response:
    assert "FOREIGN KEY" in str(error).upper()
    return JSONResponse({"mine": type(error).__name__}, status_code=422)


def by_argument(url: str) -> Starlette:
    return make(url, exception_handlers={IntegrityError: shows_the_class})[0]


def by_argument_for_a_base_class(url: str) -> Starlette:
    return make(url, exception_handlers={SQLAlchemyError: shows_the_class})[0]


def after_the_setup(url: str) -> Starlette:
    app, _ = make(url)
    app.add_exception_handler(IntegrityError, shows_the_class)
    return app


@pytest.mark.parametrize("path", ["/orphan", "/orphan-and-commit"])
@pytest.mark.parametrize("build", [by_argument, by_argument_for_a_base_class, after_the_setup])
async def test_the_applications_handler_answers_and_sees_the_original_error(
    database_url: str, path: str, build: Callable[[str], Starlette]
) -> None:
    app = build(database_url)
    async with running(app), client(app) as http:
        answer = await http.get(path)
    assert (answer.status_code, answer.json()) == (422, {"mine": "IntegrityError"})


async def test_a_handler_may_raise_another_error_that_is_answered_in_turn(
    database_url: str,
) -> None:
    def other(conn: Request, error: Exception) -> Response:
        raise HTTPException(410, "gone") from error

    app, _ = make(database_url, exception_handlers=cast("Any", {IntegrityError: other}))
    async with running(app), client(app) as http:
        for path in ("/orphan", "/orphan-and-commit"):
            answer = await http.get(path)
            assert (answer.status_code, answer.text) == (410, "gone")


async def test_the_applications_shape_of_http_errors_is_used_and_retry_after_added(
    sqlite_url: str,
) -> None:
    def shaped(conn: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"problem": error.status_code}, status_code=error.status_code)

    async def two_at_once(conn: Request) -> Response:
        await get_session(conn).execute(text("select 1"))
        async with conn.app.state.databases["default"].session() as second:
            await second.execute(text("select 1"))
        raise AssertionError

    app, database = make(
        sqlite_url,
        pool=PoolConfig(size=1, max_overflow=0, timeout=0.05),
        exception_handlers=cast("Any", {HTTPException: shaped}),
        routes=[Route("/two", two_at_once)],
    )
    async with running(app), client(app) as http:
        assert (await http.get("/orphan")).json() == {"problem": 409}
        full = await http.get("/two")
        assert (full.status_code, full.json()) == (503, {"problem": 503})
        assert full.headers["retry-after"] == "1"
        assert held(database) == 0


@pytest.mark.parametrize("late", [False, True])
async def test_the_headers_of_the_applications_middleware_are_on_commit_errors(
    database_url: str, late: bool
) -> None:
    cors = Middleware(CORSMiddleware, allow_origins=["http://page"])
    app, _ = make(database_url, middleware=[] if late else [cors])
    if late:
        app.add_middleware(CORSMiddleware, allow_origins=["http://page"])
    async with running(app), client(app) as http:
        answer = await http.get("/orphan", headers={"origin": "http://page"})
    assert answer.status_code == 409
    assert answer.headers["access-control-allow-origin"] == "http://page"


@pytest.mark.parametrize("late", [False, True])
async def test_a_base_http_middleware_changes_nothing(database_url: str, late: bool) -> None:
    async def stamp(conn: Request, call_next: Any) -> Response:
        # The session of the middleware is the one that the handler gets, in another task.
        await write(get_session(conn), "by the middleware")
        answer: Response = await call_next(conn)
        answer.headers["x-stamp"] = "yes"
        return answer

    middleware = Middleware(BaseHTTPMiddleware, dispatch=stamp)
    app, database = make(database_url, middleware=[] if late else [middleware])
    if late:
        app.add_middleware(BaseHTTPMiddleware, dispatch=stamp)
    async with running(app), client(app) as http:
        failed = await http.get("/orphan")
        assert (failed.status_code, failed.headers["x-stamp"]) == (409, "yes")
        assert await stored(database) == []
        assert (await http.get("/note")).status_code == 201
        assert await stored(database) == ["a note", "by the middleware"]
        assert held(database) == 0


async def test_a_missing_table_is_a_bug_and_the_log_says_what_to_run(
    database_url: str, lines: list[str]
) -> None:
    app, database = make(database_url)
    async with running(app), client(app) as http:
        answer = await http.get("/missing-table")
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")
        assert held(database) == 0
    (line,) = [line for line in lines if "answered with 500" in line]
    # Older versions of Starlette do not say which route it was.
    assert re.match(r"ERROR\|GET (/missing-table )?missing_table answered with 500", line)
    assert "database upgrade" in line


async def test_the_applications_own_handler_for_bugs_answers_them(database_url: str) -> None:
    async def sorry(conn: Request, error: Exception) -> Response:
        return PlainTextResponse(f"sorry, {isinstance(error, SQLAlchemyError)}", status_code=500)

    app, _ = make(database_url, exception_handlers={Exception: sorry})
    async with running(app), client(app) as http:
        assert (await http.get("/missing-table")).text == "sorry, True"
        # A conflict is no bug.
        assert (await http.get("/orphan")).status_code == 409


@pytest.mark.parametrize("handler_for_bugs", [False, True])
async def test_of_an_unknown_outcome_the_client_is_told(
    sqlite_url: str, handler_for_bugs: bool
) -> None:
    async def unknown(conn: Request) -> Response:
        raise CommitOutcomeUnknownError("the connection was lost during COMMIT")

    async def sorry(conn: Request, error: Exception) -> Response:
        return PlainTextResponse("sorry", status_code=500)

    handlers: Any = {500: sorry} if handler_for_bugs else {}
    app, _ = make(sqlite_url, routes=[Route("/unknown", unknown)], exception_handlers=handlers)
    async with running(app), client(app) as http:
        answer = await http.get("/unknown")
    assert answer.status_code == 500
    assert "retry-after" not in answer.headers
    assert ("may have been stored" in answer.text) is not handler_for_bugs
    assert (answer.text == "sorry") is handler_for_bugs


REFUSE_AT_COMMIT = """
create function refuse() returns trigger language plpgsql as
    $$ begin raise exception 'not on a Sunday'; end $$;
create constraint trigger refuse after insert on notes
    deferrable initially deferred for each row execute function refuse();
"""


@pytest.mark.parametrize("handler_for_bugs", [False, True])
async def test_a_commit_that_fails_of_a_bug_is_a_bug(
    postgres: Any, postgres_url: str, handler_for_bugs: bool
) -> None:
    async def sorry(conn: Request, error: Exception) -> Response:
        return PlainTextResponse("sorry", status_code=500)

    app, database = make(
        postgres_url, exception_handlers={Exception: sorry} if handler_for_bugs else {}
    )
    async with running(app):
        postgres.psql(REFUSE_AT_COMMIT, postgres_url.rsplit("/", 1)[1])
        answer = await request(app, "/note")
        assert answer.status == 500
        assert answer.body == (b"sorry" if handler_for_bugs else b"Internal Server Error")
        # The server is told, as of every bug, and not what the driver said.
        assert isinstance(answer.error, SQLAlchemyError)
        assert "Sunday" not in str(answer.error)
        assert await stored(database) == []
        assert held(database) == 0


async def test_no_error_is_logged_twice_or_with_its_values(
    database_url: str, lines: list[str]
) -> None:
    app, _ = make(database_url)
    async with running(app), client(app) as http:
        await http.get("/note", params={"text": "s3cret"})
        lines.clear()
        for path in ("/note", "/note-and-commit"):
            answer = await http.get(path, params={"text": "s3cret"})
            assert answer.status_code == 409
            assert "s3cret" not in answer.text
        await http.get("/orphan")
    assert len([line for line in lines if "s3cret" in line]) == 0
    assert [line.split("|")[0] for line in lines[:-1]] == ["INFO", "INFO", "INFO"]


# Repositories of advanced-alchemy


async def test_errors_of_repositories_are_told_apart_by_their_cause(database_url: str) -> None:
    from advanced_alchemy.exceptions import (
        AdvancedAlchemyError,
        NotFoundError,
        wrap_sqlalchemy_exception,
    )

    async def duplicate(conn: Request) -> Response:
        with wrap_sqlalchemy_exception():
            for _ in range(2):
                await write(get_session(conn), "same")
        raise AssertionError

    async def nothing(conn: Request) -> Response:
        raise NotFoundError("nothing here")

    routes = [Route("/duplicate", duplicate), Route("/nothing", nothing)]
    app, _ = make(database_url, routes=routes)
    async with running(app), client(app) as http:
        assert (await http.get("/duplicate")).status_code == 409
        assert (await http.get("/nothing")).status_code == 404

    async def mine(conn: Request, error: Exception) -> Response:
        return PlainTextResponse("mine", status_code=499)

    app, _ = make(database_url, routes=routes, exception_handlers={AdvancedAlchemyError: mine})
    async with running(app), client(app) as http:
        assert (await http.get("/duplicate")).text == "mine"
        assert (await http.get("/nothing")).text == "mine"


# Mounted applications


@pytest.mark.parametrize("registered", ["outside", "ours", "its own"])
async def test_a_mounted_application_sees_the_session(database_url: str, registered: str) -> None:
    handlers: dict[str, Any] = {
        "outside": {},
        "ours": {SQLAlchemyError: answer_database_error},
        "its own": {IntegrityError: shows_the_class},
    }
    inner = Starlette(routes=ROUTES, exception_handlers=handlers[registered])
    app, database = make(database_url, routes=[Mount("/inner", inner)])
    async with running(app), client(app) as http:
        assert (await http.get("/inner/note")).status_code == 201
        assert await stored(database) == ["a note"]
        # COMMIT is answered by the handlers of the mounted application, then by those around it.
        at_commit = (await http.get("/inner/orphan")).status_code
        before = (await http.get("/inner/orphan-and-commit")).status_code
        expected = {"outside": (409, 409), "ours": (409, 409), "its own": (422, 422)}
        assert (at_commit, before) == expected[registered]
        assert held(database) == 0


async def test_an_application_of_litestar_may_be_mounted(database_url: str) -> None:
    @get("/orphan")
    async def its_orphan(request: LitestarRequest[Any, Any, Any]) -> None:
        await write_orphan(unit_of(cast("Any", request.scope)).session)

    @get("/moved")
    async def its_redirect(request: LitestarRequest[Any, Any, Any]) -> None:
        await write(unit_of(cast("Any", request.scope)).session, "half")
        raise RedirectError

    def redirect(*_: object) -> LitestarResponse[None]:
        return LitestarResponse(None, status_code=303, headers={"location": "/"})

    inner = Litestar([its_orphan, its_redirect], exception_handlers={RedirectError: redirect})
    app, database = make(database_url, routes=[Mount("/inner", cast("Any", inner))])
    async with running(app), client(app) as http:
        assert (await http.get("/inner/orphan")).status_code == 409
        assert (await http.get("/inner/moved")).status_code == 303
        assert await stored(database) == []
        assert held(database) == 0


async def test_a_mounted_application_may_have_a_database_of_the_same_name(
    database_url: str, tmp_path: Path
) -> None:
    inner, its_own = make(f"sqlite:///{tmp_path / 'inner.sqlite3'}")
    seen: list[bool] = []

    async def note_around(conn: Request, call_next: Any) -> Response:
        before = get_session(conn)
        answer: Response = await call_next(conn)
        seen.append(get_session(conn) is before)
        return answer

    app, database = make(
        database_url,
        routes=[Mount("/inner", inner)],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=note_around)],
    )
    async with running(app), client(app) as http, its_own:
        assert (await http.get("/inner/note")).status_code == 201
        assert (await stored(its_own), await stored(database)) == (["a note"], [])
    assert seen == [True]


# Streams and background tasks


async def test_a_stream_uses_the_session_to_its_end(database_url: str) -> None:
    async def stream(conn: Request) -> Response:
        session = get_session(conn)

        async def body() -> AsyncIterator[str]:
            for number in range(3):
                await write(session, f"note {number}")
                yield f"{number}\n"

        return StreamingResponse(body())

    app, database = make(database_url, routes=[Route("/stream", stream)])
    ends: list[list[str]] = []

    async def look_at_the_end(message: Any) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            ends.append(await stored(database))

    async with running(app):
        answer = await request(app, "/stream", on_message=look_at_the_end)
        assert answer.body == b"0\n1\n2\n"
        assert held(database) == 0
    assert ends == [["note 0", "note 1", "note 2"]]


async def test_a_stream_that_fails_is_rolled_back_and_cut_short(database_url: str) -> None:
    async def stream(conn: Request) -> Response:
        session = get_session(conn)

        async def body() -> AsyncIterator[str]:
            await write(session, "a note")
            yield "begun\n"
            raise LookupError

        return StreamingResponse(body())

    app, database = make(database_url, routes=[Route("/stream", stream)])
    async with running(app):
        answer = await request(app, "/stream")
        assert (answer.body, answer.complete) == (b"begun\n", False)
        assert isinstance(answer.error, LookupError)
        assert await stored(database) == []
        assert held(database) == 0


async def test_a_stream_whose_commit_fails_is_cut_short(database_url: str) -> None:
    async def stream(conn: Request) -> Response:
        session = get_session(conn)

        async def body() -> AsyncIterator[str]:
            await write_orphan(session)
            yield "begun\n"

        return StreamingResponse(body())

    app, database = make(database_url, routes=[Route("/stream", stream)])
    async with running(app):
        answer = await request(app, "/stream")
        assert (answer.status, answer.complete) == (200, False)
        assert answer.error is not None
        assert await stored(database) == []
        assert held(database) == 0


async def test_a_stream_whose_client_leaves_is_rolled_back(database_url: str) -> None:
    async def stream(conn: Request) -> Response:
        session = get_session(conn)

        async def body() -> AsyncIterator[str]:
            for number in range(1000):
                await write(session, f"note {number}")
                yield f"{number}\n"

        return StreamingResponse(body())

    app, database = make(database_url, routes=[Route("/stream", stream)])
    async with running(app):
        answer = await request(app, "/stream", leave_after=3)
        assert not answer.complete
        assert await stored(database) == []
        assert held(database) == 0


async def test_a_background_task_uses_the_session(database_url: str) -> None:
    async def later(session: AsyncSession) -> None:
        await write(session, "later")

    async def handler(conn: Request) -> Response:
        session = get_session(conn)
        await write(session, "now")
        return Response(NO_CONTENT, background=BackgroundTask(later, session))

    app, database = make(database_url, routes=[Route("/later", handler)])
    async with running(app), client(app) as http:
        await http.get("/later")
        assert await stored(database) == ["later", "now"]
        assert held(database) == 0


async def test_a_background_task_whose_commit_fails_is_logged(
    database_url: str, lines: list[str]
) -> None:
    async def handler(conn: Request) -> Response:
        session = get_session(conn)
        return Response(NO_CONTENT, background=BackgroundTask(write_orphan, session))

    app, database = make(database_url, routes=[Route("/later", handler)])
    async with running(app), client(app) as http:
        assert (await http.get("/later")).status_code == 200
        assert await stored(database) == []
        assert held(database) == 0
    (line,) = [line for line in lines if line.startswith("ERROR")]
    assert "COMMIT after the response failed" in line


# WebSockets


async def talk(conn: WebSocket) -> None:
    await conn.accept()
    session = get_session(conn)
    async for word in conn.iter_text():
        if word == "close":
            await conn.close()
            return
        if word == "fail":
            raise LookupError
        if word == "orphan":
            await write_orphan(session)
        else:
            await write(session, word)
        await conn.send_text(word)


@pytest.mark.parametrize(
    ("words", "kept", "code"),
    [
        (["one", "two", "close"], ["one", "two"], 1000),
        (["one", "orphan", "close"], [], 1011),
        (["one", "fail"], [], None),
    ],
)
async def test_a_websocket_has_a_session(
    database_url: str, words: list[str], kept: list[str], code: int | None
) -> None:
    app, database = make(database_url, routes=[WebSocketRoute("/talk", talk)])
    async with running(app):
        socket = WebSocketClient(app, "/talk")
        assert (await socket.receive())["type"] == "websocket.accept"
        for word in words[:-1]:
            await socket.send(word)
            assert (await socket.receive())["text"] == word
        await socket.send(words[-1])
        if code is not None:
            assert (await socket.receive())["code"] == code
        assert isinstance(await socket.ended(), LookupError) is (code is None)
        assert await stored(database) == kept
        assert held(database) == 0


async def test_a_websocket_that_nobody_closed_is_closed_with_an_error_when_commit_fails(
    database_url: str,
) -> None:
    async def returns(conn: WebSocket) -> None:
        await conn.accept()
        await write_orphan(get_session(conn))

    app, database = make(database_url, routes=[WebSocketRoute("/returns", returns)])
    async with running(app):
        socket = WebSocketClient(app, "/returns")
        assert (await socket.receive())["type"] == "websocket.accept"
        assert (await socket.receive())["code"] == 1011
        assert await socket.ended() is None
        assert await stored(database) == []
        assert held(database) == 0


async def test_a_database_error_ends_a_websocket_as_the_error_it_is(sqlite_url: str) -> None:
    async def broken(conn: WebSocket) -> None:
        await conn.accept()
        await get_session(conn).execute(text("select * from papyri"))

    app, database = make(sqlite_url, routes=[WebSocketRoute("/broken", broken)])
    async with running(app):
        socket = WebSocketClient(app, "/broken")
        assert isinstance(await socket.ended(), SQLAlchemyError)
        assert held(database) == 0


# Two databases


@pytest.mark.parametrize("failing", ["default", "second"])
async def test_a_commit_that_fails_in_one_of_two_databases_is_answered(
    postgres_url: str, sqlite_url: str, failing: str
) -> None:
    async def in_both(conn: Request) -> Response:
        for name in ("default", "second"):
            session = get_session(conn, name)
            await (write_orphan(session) if name == failing else write(session, "a note"))
        return Response(NO_CONTENT, status_code=201)

    app, first = make(postgres_url, routes=[Route("/both", in_both)])
    second = setup_database(
        app,
        DatabaseConfig(url=sqlite_url, name="second"),
        path=None,
        commit="autocommit",
        metadata=metadata,
        create_all=True,
    )
    async with running(app), client(app) as http:
        assert (await http.get("/both")).status_code == 409
        # The one that was set up last commits first: there is no transaction over both.
        assert await stored(first) == []
        assert await stored(second) == ([] if failing == "second" else ["a note"])
        assert held(first) == held(second) == 0


# Sessions


async def test_a_session_that_outlives_its_request_says_so(sqlite_url: str) -> None:
    kept: list[Request] = []

    async def keep(conn: Request) -> Response:
        kept.append(conn)
        return Response()

    app, _ = make(sqlite_url, routes=[Route("/keep", keep)])
    async with running(app), client(app) as http:
        await http.get("/keep")
        with pytest.raises(SessionClosedError):
            get_session(kept[0])


async def test_the_read_session_refuses_to_write(database_url: str) -> None:
    async def handler(conn: Request) -> Response:
        session = get_read_session(conn)
        with pytest.raises(ReadOnlySessionError):
            await write(session, "a note")
        return JSONResponse(await session.scalar(text("select 7")))

    app, _ = make(database_url, routes=[Route("/read", handler)])
    async with running(app), client(app) as http:
        assert (await http.get("/read")).json() == 7


# Names in log lines


class ByClass(HTTPEndpoint):
    async def get(self, conn: Request) -> Response:
        return await orphan(conn)


async def by_partial(conn: Request, flavour: str) -> Response:
    return await orphan(conn)


async def test_the_log_names_the_handler(sqlite_url: str, lines: list[str]) -> None:
    early: list[str] = []

    async def look_early(conn: Request, call_next: Any) -> Response:
        early.append(str(describe_origin()))
        answer: Response = await call_next(conn)
        return answer

    app, _ = make(
        sqlite_url,
        routes=[
            Route("/notes/{token}/class", ByClass),
            Route("/partial", functools.partial(by_partial, flavour="sweet")),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=look_early)],
    )
    async with running(app), client(app) as http:
        await http.get("/notes/s3cret/class")
        await http.get("/partial", headers={"x-request-id": "r1"})
    # Before the router has found it, nobody knows the handler; and a path may bear a token.
    assert early == ["GET ?", "GET ? [r1]"]
    failed = [line for line in lines if "COMMIT failed" in line]
    assert re.match(r"INFO\|GET (/notes/{token}/class )?ByClass: ", failed[0])
    assert re.match(r"INFO\|GET (/partial )?by_partial: ", failed[1])
    assert not any("s3cret" in line for line in lines)
