"""A middleware that answers in the place of a handler which takes too long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response
from starlette.routing import Route

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.starlette import get_session, setup_database
from tests.support.asgi import client, running
from tests.support.notes import held, metadata, stored, write

if TYPE_CHECKING:
    from starlette.requests import Request


class TimeLimit(BaseHTTPMiddleware):
    """Starlette lets the handler run on, whatever ends the wait for its response."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Answer after half a second at the latest."""
        answer = asyncio.ensure_future(call_next(request))
        await asyncio.wait([answer], timeout=0.5)
        return answer.result() if answer.done() else Response(status_code=504)


@pytest.mark.parametrize(("path", "rows"), [("/fast", ["a note"]), ("/slow", [])])
async def test_what_a_time_limit_answered_as_failed_is_not_stored(
    database_url: str, path: str, rows: list[str]
) -> None:
    async def add(request: Request) -> Response:
        await write(get_session(request), "a note")
        if request.url.path == "/slow":
            await asyncio.sleep(0.8)
        return Response(status_code=201)

    routes = [Route("/fast", add), Route("/slow", add)]
    app = Starlette(routes=routes, middleware=[Middleware(TimeLimit)])
    database = setup_database(
        app,
        DatabaseConfig(url=database_url),
        commit="autocommit",
        metadata=metadata,
        create_all=True,
    )
    async with running(app), client(app) as http:
        answer = await http.get(path)
        assert answer.status_code == (201 if rows else 504)
        assert await stored(database) == rows
        assert held(database) == 0
