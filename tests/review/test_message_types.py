"""Messages of ASGI other than those of every day: refused WebSockets, files that the server sends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response
from starlette.routing import Route, WebSocketRoute

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.starlette import get_session, setup_database
from tests.support.asgi import LIMIT, WebSocketClient, running, scope_of
from tests.support.notes import held, metadata, stored, write

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from reviewpoint_db.database import Database


async def close_at_once(websocket: WebSocket) -> None:
    await write(get_session(websocket), "a note")
    await websocket.close()


async def return_at_once(websocket: WebSocket) -> None:
    await write(get_session(websocket), "a note")


async def deny(websocket: WebSocket) -> None:
    await write(get_session(websocket), "a note")
    websocket.scope["extensions"] = {"websocket.http.response": {}}
    await websocket.receive()
    await websocket.send_denial_response(Response(status_code=403))


def _app(url: str, *routes: Route | WebSocketRoute) -> tuple[Starlette, Database]:
    app = Starlette(routes=routes)
    config = DatabaseConfig(url=url)
    return app, setup_database(app, config, commit="autocommit", metadata=metadata, create_all=True)


@pytest.mark.parametrize("endpoint", [close_at_once, return_at_once, deny])
async def test_a_websocket_that_was_never_accepted_stores_nothing(
    database_url: str, endpoint: Any
) -> None:
    """To its client each of these is an HTTP error, also with the close code 1000."""
    app, database = _app(database_url, WebSocketRoute("/", endpoint))
    async with running(app):
        assert await WebSocketClient(app, "/").ended() is None
        assert await stored(database) == []
        assert held(database) == 0


async def test_a_background_task_after_a_file_that_the_server_sends_is_stored(
    sqlite_url: str, tmp_path: Path
) -> None:
    """`http.response.pathsend` ends a response as the last message of a body does."""
    file = tmp_path / "file.txt"
    file.touch()

    async def send_file(request: Request) -> Response:
        session = get_session(request)
        await write(session, "of the handler")
        return FileResponse(file, background=BackgroundTask(write, session, "of the task"))

    app, database = _app(sqlite_url, Route("/", send_file))
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async with running(app):
        scope = scope_of("http", "/", extensions={"http.response.pathsend": {}})
        await asyncio.wait_for(app(scope, receive, send), LIMIT)
        # Starlette's older versions send the file themselves.
        assert sent[-1] in {"http.response.pathsend", "http.response.body"}
        assert await stored(database) == ["of the handler", "of the task"]
        assert held(database) == 0
