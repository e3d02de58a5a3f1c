"""How a database error is answered where the application has no handler of its own for it.

The handlers here are registered as defaults: an application's handler for the same class, or for
a class nearer to the error's own, wins. What they answer is shaped by the application where it
says how its errors look (a handler for `HTTPException` or for the status), else by Litestar's
own `{"status_code", "detail"}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from advanced_alchemy.exceptions import RepositoryError
from advanced_alchemy.extensions.litestar.exception_handler import exception_to_http_response
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException
from litestar.exceptions.responses import (
    ExceptionResponseContent,
    create_debug_response,
    create_exception_response,
)
from litestar.status_codes import HTTP_409_CONFLICT, HTTP_500_INTERNAL_SERVER_ERROR
from sqlalchemy.exc import SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from reviewpoint_db.answer_log import log_answer
from reviewpoint_db.errors import CommitOutcomeUnknownError, ReviewPointDBError
from reviewpoint_db.logs import mark_as_logged
from reviewpoint_db.sqlstate import ErrorAnswer, answer_for, retry_after_header

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send

__all__ = ("answer_commit_error", "database_error_handler", "repository_error_handler")

AnyRequest = Request[Any, Any, Any]


def database_error_handler(
    retry_after: float,
) -> Callable[[AnyRequest, SQLAlchemyError], Response[Any]]:
    """Make the default handler of database errors.

    Args:
        retry_after: What a 503 asks the client to wait, in seconds.
    """

    def handle(request: AnyRequest, error: SQLAlchemyError) -> Response[Any]:
        return _respond(request, error, answer_for(error, retry_after=retry_after))

    return handle


def repository_error_handler(
    retry_after: float,
) -> Callable[[AnyRequest, RepositoryError], Response[Any]]:
    """Make the default handler of advanced-alchemy's errors.

    One that was caused by a database error is told apart by SQLSTATE, as everywhere here; the
    others are answered as advanced-alchemy does.

    Args:
        retry_after: What a 503 asks the client to wait, in seconds.
    """

    def handle(request: AnyRequest, error: RepositoryError) -> Response[Any]:
        cause = error.__cause__
        # Not every cause is the database's: "no row found" and "several rows found" are answers.
        if not isinstance(cause, StatementError | PoolTimeout | ReviewPointDBError):
            return exception_to_http_response(request, error)
        answer = answer_for(error, retry_after=retry_after)
        detail = answer.detail
        # The text may be the application's own (`error_messages=`), and says more than ours; but
        # advanced-alchemy's last resort is the statement itself.
        if answer.status == HTTP_409_CONFLICT and error.detail and str(cause) not in error.detail:
            detail = error.detail
        return _respond(request, error, answer, detail=detail)

    return handle


async def answer_commit_error(scope: Any, receive: Any, send: Any, error: Exception) -> None:
    """Answer a failed COMMIT by the application's own exception handlers, though a response was begun.

    The response's start never left: the COMMIT that failed stood before it. But Litestar noted it
    as sent, and there is no public way to say otherwise. Both private names of Litestar that this
    package uses are here; a test fails when they change.
    """
    from litestar._asgi.utils import wrap_in_exception_handler
    from litestar.utils.scope.state import ScopeState

    async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    mark_as_logged(error)  # by the middleware that met it
    ScopeState.from_scope(scope).response_started = False
    await wrap_in_exception_handler(fail)(scope, receive, send)


def _respond(
    request: AnyRequest, error: Exception, answer: ErrorAnswer, *, detail: str | None = None
) -> Response[Any]:
    if not mark_as_logged(error):
        log_answer(error, answer.status)
    # Those of its routers and of the handler itself are among them.
    handlers = request.route_handler.resolve_exception_handlers()
    unknown = isinstance(error, CommitOutcomeUnknownError)
    if answer.status == HTTP_500_INTERNAL_SERVER_ERROR:
        # No different from any other bug, and answered by who answers those.
        for key in (HTTP_500_INTERNAL_SERVER_ERROR, Exception):
            if key in handlers:
                return handlers[key](request, error)
        if not unknown:
            make = create_debug_response if request.app.debug else create_exception_response
            return make(request, error)
    retry = answer.retry_after
    headers = {} if retry is None else {"Retry-After": retry_after_header(retry)}
    http_error = HTTPException(
        status_code=answer.status, detail=detail or answer.detail, headers=headers
    )
    for key in (answer.status, HTTPException):
        if key in handlers:
            response = handlers[key](request, http_error)
            # A handler that makes its own response may have left the error's headers out.
            response.headers = {**headers, **response.headers}
            return response
    # Litestar's create_exception_response() hides the detail of a 500, and for a COMMIT of unknown
    # outcome that is the one thing that the client has to know.
    return ExceptionResponseContent(
        status_code=http_error.status_code,
        detail=http_error.detail,
        headers=headers,
        media_type=MediaType.JSON,
    ).to_response(request=request)
