"""What becomes of a WebSocket's transaction in Litestar, however it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from litestar import Litestar, WebSocket, websocket
from litestar.exceptions import NotAuthorizedException, WebSocketDisconnect

from reviewpoint_db.litestar import (
    SessionDep,
    get_session,
)
from tests.support.asgi import WebSocketClient, running
from tests.support.litestar import make
from tests.support.notes import held, stored, write, write_orphan

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler
    from litestar.params import FromQuery

pytestmark = pytest.mark.usefixtures("no_collector")


class TestWebSockets:
    @staticmethod
    async def talk(app: Litestar, *, leave: int | None = None) -> int | None:
        """Opens a socket, says one thing, and returns the code by which the application closes."""
        socket = WebSocketClient(app, "/")
        message = await socket.receive()
        if message["type"] == "websocket.accept":
            await socket.send("a")
            if leave is not None:
                await socket.leave(leave)
            message = await socket.receive() if leave is None else {}
        await socket.ended()
        return message.get("code")

    async def test_a_normal_end_stores(self, database_url: str) -> None:
        @websocket("/")
        async def handler(socket: WebSocket[Any, Any, Any], db_session: SessionDep) -> None:
            await socket.accept()
            await write(db_session, await socket.receive_text())
            await socket.close()

        app, database = make(database_url, handler)
        async with running(app):
            assert await self.talk(app) == 1000
            assert await stored(database) == ["a"]
            assert held(database) == 0

    async def test_a_failed_commit_is_told_by_the_code(self, database_url: str) -> None:
        @websocket("/")
        async def handler(socket: WebSocket[Any, Any, Any], db_session: SessionDep) -> None:
            await socket.accept()
            await write_orphan(db_session, await socket.receive_text())
            await socket.close()

        app, database = make(database_url, handler)
        async with running(app):
            assert await self.talk(app) == 1011
            assert await stored(database) == []
            assert held(database) == 0

    async def test_an_exception_rolls_back(self, database_url: str) -> None:
        @websocket("/")
        async def handler(socket: WebSocket[Any, Any, Any], db_session: SessionDep) -> None:
            await socket.accept()
            await write(db_session, await socket.receive_text())
            raise LookupError

        app, database = make(database_url, handler)
        async with running(app):
            assert await self.talk(app) == 4500
            assert await stored(database) == []
            assert held(database) == 0

    @pytest.mark.parametrize("caught", [False, True])
    async def test_a_client_that_is_gone(self, database_url: str, caught: bool) -> None:
        @websocket("/")
        async def handler(socket: WebSocket[Any, Any, Any], db_session: SessionDep) -> None:
            await socket.accept()
            await write(db_session, await socket.receive_text())
            try:
                await socket.receive_text()
            except WebSocketDisconnect:
                if not caught:
                    raise

        app, database = make(database_url, handler)
        async with running(app):
            await self.talk(app, leave=1006)
            assert held(database) == 0
            assert await stored(database) == (["a"] if caught else [])

    async def test_a_guard_or_parameter_that_fails_releases(self, database_url: str) -> None:
        async def guard(
            connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler
        ) -> None:
            await write(get_session(connection), "a")
            raise NotAuthorizedException

        @websocket("/", guards=[guard])
        async def handler(socket: WebSocket[Any, Any, Any], number: FromQuery[int]) -> None: ...

        app, database = make(database_url, handler)
        async with running(app):
            assert await self.talk(app) == 4500
            assert held(database) == 0
            assert await stored(database) == []
