"""The routes below `path`, served before the application's own middleware and routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from reviewpoint_db.endpoints.routes import OwnRoute, routes_below
from reviewpoint_db.starlette.errors import add_default_handlers, with_handlers_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

    from reviewpoint_db.database import Database
    from reviewpoint_db.endpoints.access import Access
    from reviewpoint_db.endpoints.reply import Reply

__all__ = ["Endpoint", "RoutesMiddleware", "make_routes"]

Endpoint = Callable[[Request], Awaitable[Response]]


def make_routes(
    database: Database,
    path: str,
    access: Access,
    guarded: Callable[[str, Endpoint], BaseRoute],
) -> list[BaseRoute]:
    """Make the routes of one database.

    Args:
        database: What they tell of.
        path: What they are below.
        access: Whether the guarded ones exist, and their token.
        guarded: Makes a route that the application's guards stand before.
    """
    made: list[BaseRoute] = []
    for route in routes_below(path, access):
        make = guarded if route.guarded else Route
        endpoint = _endpoint(route, database, access)
        made.append(make(f"{path}{route.path}", endpoint))
        if route.path == "/":
            made.append(make(path, endpoint))  # without the slash at the end, too
    return made


def _endpoint(route: OwnRoute, database: Database, access: Access) -> Endpoint:
    async def serve(request: Request) -> Response:
        return _response(await route.reply(database, access, request.headers))

    return serve


def _response(reply: Reply) -> Response:
    return Response(reply.body, status_code=reply.status, headers=reply.headers)


class RoutesMiddleware:
    """Serves our routes before the application's middleware: its rules are for its own."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], owner: Starlette) -> None:
        self.app = app
        self.routes = routes
        self.owner = owner
        self._known = len(owner.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is ours, and hand on everything else."""
        if len(self.owner.routes) != self._known:  # something was mounted, maybe
            self._known = len(self.owner.routes)
            add_default_handlers(self.owner)
        if scope["type"] == "http":
            for route in self.routes:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found)
                    await with_handlers_of(self.owner, route.handle)(scope, receive, send)
                    return
        await self.app(scope, receive, send)
