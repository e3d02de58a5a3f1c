"""A WebSocket whose database is unavailable, in each adapter, as any ASGI server would see it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import fastapi
import pytest
from litestar import Litestar, websocket
from litestar import WebSocket as LitestarSocket
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import WebSocketRoute

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.errors import PoolTimeoutError
from reviewpoint_db.fastapi import SessionDep
from reviewpoint_db.fastapi import setup_database as setup_fastapi
from reviewpoint_db.litestar import ReviewPointDBPlugin
from reviewpoint_db.litestar import SessionDep as LitestarSessionDep
from reviewpoint_db.sockets import SocketRefusal
from reviewpoint_db.starlette import get_session
from reviewpoint_db.starlette import setup_database as setup_starlette
from tests.support.asgi import WebSocketClient, running
from tests.support.logs import logged
from tests.support.notes import held

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from reviewpoint_db.database import Database

    Made = tuple[Any, Database]

DENIAL: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}
UNAVAILABLE = "The database is unavailable. Please try again."


async def _talk(socket: Any, session: AsyncSession, how: str) -> None:
    """Ask the database before the accept, after it, or after the close."""
    if how in {"accepted", "closed", "broken"}:
        await socket.accept()
    if how == "closed":
        await socket.close()
    if how == "broken":
        raise LookupError
    await session.execute(text("SELECT 1" if how != "wrong" else "SELECT nothing"))
    await socket.accept()
    await socket.close()


def _config(url: str) -> DatabaseConfig:
    return DatabaseConfig(
        url=url, pool=PoolConfig(size=1, max_overflow=0, timeout=0.1), retry_after=2.5
    )


def _litestar(url: str) -> Made:
    @websocket("/{how:str}")
    async def handler(
        socket: LitestarSocket[Any, Any, Any], db_session: LitestarSessionDep
    ) -> None:
        await _talk(socket, db_session, socket.path_params["how"])

    plugin = ReviewPointDBPlugin(_config(url))
    return Litestar([handler], plugins=[plugin]), plugin.database


def _starlette(url: str) -> Made:
    async def handler(socket: Any) -> None:
        await _talk(socket, get_session(socket), socket.path_params["how"])

    app = Starlette(routes=[WebSocketRoute("/{how}", handler)])
    return app, setup_starlette(app, _config(url))


def _fastapi(url: str) -> Made:
    app = fastapi.FastAPI()

    @app.websocket("/{how}")
    async def handler(how: str, socket: fastapi.WebSocket, session: SessionDep) -> None:
        await _talk(socket, session, how)

    return app, setup_fastapi(app, _config(url))


@pytest.fixture(params=[_litestar, _starlette, _fastapi], ids=lambda make: make.__name__[1:])
def made(request: pytest.FixtureRequest, sqlite_url: str) -> Made:
    make: Callable[[str], Made] = request.param
    return make(sqlite_url)


async def _messages(app: Any, how: str, database: Database, **more: Any) -> list[Any]:
    """What an application sends over a WebSocket while the pool is full."""
    async with database.session() as session:
        await session.execute(text("SELECT 1"))
        socket = WebSocketClient(app, f"/{how}", **more)
        await socket.ended()
    sent = []
    while socket.pending:
        sent.append(await socket.receive())
    assert held(database) == 0
    return sent


async def test_a_handshake_is_answered_as_a_request(made: Made) -> None:
    app, database = made
    async with running(app):
        with logged() as lines:
            start, body = await _messages(app, "handshake", database, **DENIAL)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    headers = dict(start["headers"])
    assert headers[b"retry-after"] == b"3"
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert body["type"] == "websocket.http.response.body"
    # As each framework says so of a request.
    if isinstance(app, fastapi.FastAPI):
        assert json.loads(body["body"]) == {"detail": UNAVAILABLE}
    elif isinstance(app, Starlette):
        assert body["body"].decode() == UNAVAILABLE
    else:
        assert json.loads(body["body"]) == {"status_code": 503, "detail": UNAVAILABLE}
    (line,) = [line for line in lines if "answered with 503" in line]
    assert line.startswith("WARNING|WEBSOCKET ")


@pytest.mark.parametrize("adapter", [_starlette, _fastapi])
async def test_a_handshake_is_answered_in_the_applications_own_shape(
    adapter: Callable[[str], Made], sqlite_url: str
) -> None:
    app, database = adapter(sqlite_url)

    async def problem(_: Any, error: HTTPException) -> JSONResponse:
        # Without the error's headers, which are added then.
        return JSONResponse({"problem": error.detail}, status_code=error.status_code)

    app.add_exception_handler(HTTPException, problem)
    async with running(app):
        start, body = await _messages(app, "handshake", database, **DENIAL)
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"3")
    assert json.loads(body["body"]) == {"problem": UNAVAILABLE}


class _Looking(JSONResponse):
    """Looks whether its client is still there, as streams of older versions of Starlette do."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with asyncio.timeout(5):
            assert await receive() == {"type": "http.disconnect"}
        await super().__call__(scope, receive, send)


async def test_whoever_answers_a_handshake_finds_nothing_to_read(sqlite_url: str) -> None:
    app, database = _starlette(sqlite_url)

    async def problem(_: Any, error: HTTPException) -> JSONResponse:
        return _Looking({"problem": error.detail}, status_code=error.status_code)

    app.add_exception_handler(HTTPException, problem)
    async with running(app):
        start, body = await _messages(app, "handshake", database, **DENIAL)
    assert start["status"] == 503
    assert json.loads(body["body"]) == {"problem": UNAVAILABLE}


@pytest.mark.parametrize("how", ["raises", "leaves", "streams"])
async def test_a_handler_that_is_for_requests_alone_leaves_the_answer_to_us(
    how: str, sqlite_url: str
) -> None:
    app, database = _starlette(sqlite_url)

    async def endless() -> AsyncIterator[bytes]:
        yield b"never"
        raise LookupError

    async def handler(conn: Any, _: HTTPException) -> Any:
        if how == "raises":
            return JSONResponse(conn.method)  # of requests only
        return None if how == "leaves" else StreamingResponse(endless(), 503)

    app.add_exception_handler(HTTPException, handler)
    async with running(app):
        start, body = await _messages(app, "handshake", database, **DENIAL)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert json.loads(body["body"]) == {"status_code": 503, "detail": UNAVAILABLE}


@pytest.mark.parametrize("how", ["handshake", "accepted"])
async def test_where_the_server_knows_no_answer_it_is_closed_to_be_tried_again(
    made: Made, how: str
) -> None:
    app, database = made
    async with running(app):
        *before, close = await _messages(
            app, how, database, **(DENIAL if how == "accepted" else {})
        )
    assert [message["type"] for message in before] == (
        ["websocket.accept"] if how == "accepted" else []
    )
    assert close == {"type": "websocket.close", "code": 1013, "reason": UNAVAILABLE}


@pytest.mark.parametrize("how", ["closed", "broken", "wrong"])
async def test_what_will_not_pass_is_left_to_the_framework(made: Made, how: str) -> None:
    app, database = made
    async with running(app):
        if how == "wrong":
            socket = WebSocketClient(app, f"/{how}", **DENIAL)
            await socket.ended()
            sent = [await socket.receive()] if socket.pending else []
        else:
            sent = await _messages(app, how, database, **DENIAL)
    assert not [message for message in sent if message.get("code") == 1013]
    assert not [message for message in sent if "http.response" in message["type"]]


async def test_two_databases_answer_once_and_log_once() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "websocket"}
    outer = SocketRefusal(scope, send, 1.0)
    inner = SocketRefusal(scope, outer.send, 1.0)
    error = PoolTimeoutError("no connection became free")
    with logged() as lines:
        assert await inner.refuse(error)
        assert not await inner.refuse(error)
        assert not await outer.refuse(error)
    assert [message["code"] for message in sent] == [1013]
    assert len([line for line in lines if "answered with 503" in line]) == 1
    inner.leave(scope)
    outer.leave(scope)
    assert list(scope) == ["type"]
