"""Database errors as HTTP answers of a Starlette or FastAPI application, in its own error shape."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from loguru import logger
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Host, Mount

from reviewpoint_db.answer_log import log_answer
from reviewpoint_db.errors import CommitOutcomeUnknownError
from reviewpoint_db.logs import mark_as_logged
from reviewpoint_db.sqlstate import ErrorAnswer, answer_for, retry_after_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from reviewpoint_db.database import Database

__all__ = [
    "add_default_handlers",
    "answer_commit_error",
    "answer_database_error",
    "answer_handshake",
    "with_handlers_of",
]

# Handlers of these answer outside of all middleware, and see only what nobody else handled.
_CATCH_ALL = (500, Exception)
#: Middlewares around a mounted application, at most.
_MIDDLEWARES = 50


async def answer_database_error(conn: HTTPConnection, error: Exception) -> Response:
    """Answer a database error with 409, 503 or 404; any other goes on, and is a 500 like all bugs.

    `setup_database` registers this for `SQLAlchemyError` where the application has no handler of
    its own for it, and in the applications that are mounted in it, also while it runs. One that has
    served before it is mounted, or stands in a middleware that does not keep it as `app`, needs it
    registered too: it makes a 500 of what it does not know by itself, and nobody outside of it can
    answer any more.

    Example:
        >>> mounted.add_exception_handler(SQLAlchemyError, answer_database_error)

    Args:
        conn: The request or WebSocket.
        error: The error of SQLAlchemy, of this package, or of advanced-alchemy.

    Returns:
        What the application's handler for `HTTPException` makes of it, with Retry-After.
    """
    app: Starlette = conn.scope["app"]
    databases: dict[str, Database] = getattr(app.state, "databases", {})
    seconds = max((one.config.retry_after for one in databases.values()), default=1.0)
    answer = answer_for(error, retry_after=seconds)
    # Starlette asks for a handler at the route, and for what that raised once more.
    if not mark_as_logged(error):
        log_answer(error, answer.status)
    if not isinstance(conn, Request):
        raise error  # our middleware answers what may pass; else the server closes the WebSocket
    if answer.status == 500 and not (
        # "May have been stored" tells the client more than "Internal Server Error" does.
        isinstance(error, CommitOutcomeUnknownError)
        and app.exception_handlers.keys().isdisjoint(_CATCH_ALL)
    ):
        raise error
    return _HTTPError(answer)


class _HTTPError(Response):
    """An HTTP error, rendered by the application's own handler for it when it is sent."""

    def __init__(self, answer: ErrorAnswer) -> None:
        self.added: dict[str, str] = {}
        if answer.retry_after is not None:
            self.added["retry-after"] = retry_after_header(answer.retry_after)
        super().__init__(status_code=answer.status, headers=self.added)
        self.error = HTTPException(answer.status, answer.detail, headers=self.added)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                # A handler of the application may have left the error's headers out.
                for name, value in self.added.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = with_handlers_of(scope["app"], _raising(self.error))
        await answer(scope, receive, send_with_headers)


async def answer_handshake(scope: Scope, send: Send, answer: ErrorAnswer) -> None:
    """Answer a WebSocket's handshake as a request is answered, by the handler for `HTTPException`."""

    async def receive() -> Message:
        # There is nothing to read. Older streaming responses look for this one until it comes.
        return {"type": "http.disconnect"}

    await _HTTPError(answer)(scope, receive, send)


async def answer_commit_error(
    app: Starlette, scope: Scope, receive: Receive, send: Send, error: Exception
) -> None:
    """Answer an error of COMMIT, which is raised around the application, by its handlers.

    Args:
        app: Whose handlers answer.
        scope: The request's.
        receive: The request's.
        send: The request's.
        error: What its handlers get to see.
    """
    mark_as_logged(error)  # by the middleware that met it
    answer = _raising(error)
    if not isinstance(scope["app"], Starlette):  # a mounted one of another framework
        scope = {**scope, "app": app}
    # Those of a mounted application first. Twice in any case, as around a route: so the handler of
    # one error may raise another one.
    for owner in (scope["app"], app):
        answer = with_handlers_of(owner, answer)
    await answer(scope, receive, send)


def with_handlers_of(app: Starlette, endpoint: ASGIApp) -> ASGIApp:
    """Wrap an ASGI application so that the exception handlers of another one answer its errors."""
    handlers = {
        key: handler for key, handler in app.exception_handlers.items() if key not in _CATCH_ALL
    }
    return ExceptionMiddleware(endpoint, handlers=handlers, debug=app.debug)


def _raising(error: Exception) -> ASGIApp:
    async def raiser(*_: object) -> None:
        raise error

    return raiser


def add_default_handlers(app: Starlette) -> None:
    """Register `answer_database_error` for the errors that an application, and its mounts, left to us."""
    kinds: list[type[Exception]] = [SQLAlchemyError]
    # Raised by repositories in place of SQLAlchemy's; who did not import it cannot meet it.
    alchemy = sys.modules.get("advanced_alchemy.exceptions")
    if alchemy is not None:
        kinds.append(alchemy.RepositoryError)
    added = False
    for kind in kinds:
        # A handler for a base class is the application's word on this class too.
        if not any(
            isinstance(key, type) and key is not Exception and issubclass(kind, key)
            for key in app.exception_handlers
        ):
            app.exception_handlers[kind] = answer_database_error
            added = True
    if added and app.middleware_stack is not None:  # which has the handlers of its first request
        logger.warning(
            "{} was mounted after it had served by itself: its database errors are answered with 500. "
            "Fix: app.add_exception_handler(SQLAlchemyError, answer_database_error) before its "
            "first request",
            type(app).__name__,
        )
    # What a mounted application leaves unanswered never gets here: it makes a 500 of it by itself.
    _add_to_mounted(app.routes)


def _add_to_mounted(routes: Sequence[BaseRoute]) -> None:
    for route in routes:
        mounted = _application_in(getattr(route, "app", None))
        if mounted is not None:
            add_default_handlers(mounted)
        elif isinstance(route, Mount | Host):
            _add_to_mounted(route.routes)


def _application_in(mounted: object) -> Starlette | None:
    """Find an application in the middlewares around it, which keep it as `app` as a rule."""
    for _ in range(_MIDDLEWARES):
        if mounted is None or isinstance(mounted, Starlette):
            break
        mounted = getattr(mounted, "app", None)
    return mounted if isinstance(mounted, Starlette) else None
