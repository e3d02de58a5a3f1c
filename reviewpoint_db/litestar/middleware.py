"""What the middlewares need of Litestar: a handler's name, and its response cache."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from litestar import Request

from reviewpoint_db import commit_middleware
from reviewpoint_db.asgi import unit_of
from reviewpoint_db.asgi_types import ASGIApp
from reviewpoint_db.sockets import note_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from litestar import Litestar
    from litestar.connection import ASGIConnection
    from litestar.handlers import HTTPRouteHandler
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = (
    "CommitMiddleware",
    "get_read_session",
    "get_session",
    "note_socket_failure",
    "origin",
)


def get_session(
    connection: ASGIConnection[Any, Any, Any, Any], name: str = "default"
) -> AsyncSession:
    """Return the session of the running request, as its handler gets it.

    For where Litestar injects nothing: guards, middleware, `before_request`.

    Example:
        >>> async def must_be_known(connection: ASGIConnection, _: BaseRouteHandler) -> None:
        ...     name = connection.headers.get("x-user")
        ...     if await get_session(connection).get(User, name) is None:
        ...         raise NotAuthorizedException

    Args:
        connection: The request or WebSocket.
        name: Which database, where there are several.

    Raises:
        ConfigurationError: This application has no database of this name.
    """
    scope: Any = connection.scope
    return unit_of(scope, name).session


def get_read_session(
    connection: ASGIConnection[Any, Any, Any, Any], name: str = "default"
) -> AsyncSession:
    """Return the read session of the running request; else like `get_session`."""
    scope: Any = connection.scope
    return unit_of(scope, name).read_session


def origin(scope: Any) -> str:
    """Name the handler of a request, for log lines and the list of who holds connections."""
    # The template, not the path: a path may bear a token.
    method = scope.get("method", "WEBSOCKET")
    return f"{method} {scope.get('path_template', '?')} {scope.get('route_handler', '')}".rstrip()


async def note_socket_failure(error: Exception, scope: Any) -> None:
    """Tell our middleware what Litestar closes a WebSocket for, with a code that says 500."""
    note_failure(scope, error)


class CommitMiddleware(commit_middleware.CommitMiddleware):
    """Innermost: commits before anything of the response leaves."""

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Serve one connection; nothing stays in the response cache that was not sent to its end."""
        if getattr(scope["route_handler"], "cache", False):
            return _cached(super().__call__, scope, receive, send)
        return super().__call__(scope, receive, send)


async def _cached(serve: ASGIApp, scope: Any, receive: Any, send: Any) -> None:
    complete = False

    async def note_after_sending(message: Any) -> None:
        nonlocal complete
        await send(message)
        complete = complete or commit_middleware.is_last(message)

    try:
        await serve(scope, receive, note_after_sending)
    finally:
        if not complete:
            forgetting = asyncio.ensure_future(_forget_cached(scope))
            await asyncio.shield(forgetting)  # a stream whose client has left is cancelled


async def _forget_cached(scope: Any) -> None:
    """Take a response out of the cache.

    Litestar stores a stream before its last message is sent on to us, and so before its COMMIT.
    """
    app: Litestar = scope["litestar_app"]
    config = app.response_cache_config
    handler = cast("HTTPRouteHandler", scope["route_handler"])
    key = (handler.cache_key_builder or config.key_builder)(Request(scope))
    await config.get_store_from_app(app).delete(key)
