"""The routes below `/db` in Litestar, each for itself: nothing of the application applies to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler

from reviewpoint_db.endpoints.routes import OwnRoute, routes_below

if TYPE_CHECKING:
    from litestar.types import Guard, Middleware

    from reviewpoint_db.database import Database
    from reviewpoint_db.endpoints.access import Access

__all__ = ("make_routes",)


def make_routes(
    database: Database,
    path: str,
    access: Access,
    *,
    guards: Sequence[Guard] = (),
    middleware: Sequence[Middleware] = (),
    include_in_schema: bool = False,
) -> list[HTTPRouteHandler]:
    """Make the routes of one database.

    Args:
        database: What they tell of.
        path: What they are below.
        access: Whether the guarded ones exist, and their token.
        guards: The application's, for the guarded routes.
        middleware: The application's: its guards may need what its authentication found out.
        include_in_schema: Whether the application's OpenAPI schema shows them.
    """
    return [
        _make(
            route,
            database,
            path,
            access,
            guards=guards if route.guarded else (),
            middleware=middleware if route.guarded and guards else (),
            include_in_schema=include_in_schema,
        )
        for route in routes_below(path, access)
    ]


def _make(
    route: OwnRoute,
    database: Database,
    path: str,
    access: Access,
    *,
    guards: Sequence[Guard],
    middleware: Sequence[Middleware],
    include_in_schema: bool,
) -> HTTPRouteHandler:
    async def serve(request: Request[Any, Any, Any]) -> Response[bytes]:
        reply = await route.reply(database, access, request.headers)
        return Response(reply.body, status_code=reply.status, headers=reply.headers)

    serve.__name__ = serve.__qualname__ = f"{database.name}{route.path}".replace("/", "_")
    return _OwnHandler(
        f"{path}{route.path}",
        http_method=["GET", "HEAD"],
        dto=None,
        return_dto=None,
        guards=list(guards),
        middleware=list(middleware),
        include_in_schema=include_in_schema,
        request_max_body_size=None,
        tags=["database"],
    )(serve)


class _OwnHandler(HTTPRouteHandler):
    """A handler that inherits nothing: no guard, hook, middleware, dependency or response header."""

    @property
    def ownership_layers(self) -> list[Any]:
        """The handler alone; Litestar asks here for all that routers and applications add."""
        return [self]
