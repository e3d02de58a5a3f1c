"""The routes below `path`, served before the application's own middleware and routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from reviewpoint_db.endpoints.debug import debug
from reviewpoint_db.endpoints.health import health, live, ready
from reviewpoint_db.starlette.errors import with_handlers_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Receive, Scope, Send

    from reviewpoint_db.database import Database
    from reviewpoint_db.endpoints.access import Access
    from reviewpoint_db.endpoints.reply import Reply

__all__ = ["Endpoint", "RoutesMiddleware", "debug_endpoint", "public_routes"]

Endpoint = Callable[[Request], Awaitable[Response]]


def public_routes(database: Database, path: str) -> list[BaseRoute]:
    """Make the health routes below a path, for everybody."""

    async def health_route(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        details = database.config.debug_allowed
        return _response(await health(database, accept=accept, details=details))

    async def live_route(_: Request) -> Response:
        return _response(live())

    async def ready_route(_: Request) -> Response:
        return _response(await ready(database))

    return [
        Route(f"{path}/health", health_route),
        Route(f"{path}/health/live", live_route),
        Route(f"{path}/health/ready", ready_route),
    ]


def debug_endpoint(database: Database, access: Access) -> Endpoint:
    """Make the handler of the debug route, which asks for the token where there is one."""

    async def debug_route(request: Request) -> Response:
        refusal = access.check(request.headers.get("authorization"))
        return _response(refusal or debug(database))

    return debug_route


def _response(reply: Reply) -> Response:
    return Response(reply.body, status_code=reply.status, headers=reply.headers)


class RoutesMiddleware:
    """Serves our routes before the application's middleware: its rules are for its own."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], owner: Starlette) -> None:
        self.app = app
        self.routes = routes
        self.owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what is ours, and hand on everything else."""
        if scope["type"] == "http":
            for route in self.routes:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found)
                    await with_handlers_of(self.owner, route.handle)(scope, receive, send)
                    return
        await self.app(scope, receive, send)
