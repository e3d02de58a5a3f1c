"""CommitMiddleware: where `commit="autocommit"` commits.

It stands innermost and commits at the moment the response starts, so that a failed COMMIT is answered
as an error, by the application's own exception handlers and with the headers that its other
middlewares add. `asgi.UnitOfWorkMiddleware`, outermost, has made the unit of work and releases it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from loguru import logger
from sqlalchemy.exc import PendingRollbackError

from reviewpoint_db.asgi import unit_of
from reviewpoint_db.asgi_types import ASGIApp, Message, Receive, Scope, Send
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.sqlstate import answer_for, level_for

if TYPE_CHECKING:
    from reviewpoint_db.database import Database
    from reviewpoint_db.transaction import UnitOfWork

__all__ = ["CommitMiddleware", "is_last"]

Answer = Callable[[Scope, Receive, Send, Exception], Awaitable[None]]

#: https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1: "an unexpected condition"
_INTERNAL_ERROR: Final = 1011
#: The close codes that count as success: "normal closure" and "going away". All others roll back,
#: as statuses from 400 on do.
_NORMAL: Final = (1000, 1001)
#: The modules that catch what handlers raise. One framework's application may be mounted in another's.
_FRAMEWORKS: Final = ("starlette.", "litestar.")
#: The second one is the start of a response in place of a WebSocket, by an extension of ASGI.
_ENDS_OF_SOCKET: Final = frozenset({"websocket.close", "websocket.http.response.start"})
#: The second and third one name a file for the server to send, by extensions of ASGI.
_BODIES: Final = frozenset(
    {"http.response.body", "http.response.pathsend", "http.response.zerocopysend"}
)


class CommitMiddleware:
    """Innermost, for "autocommit": ends the transaction as the response demands, before it leaves.

    Args:
        app: What it wraps.
        database: Whose sessions they are.
        answer: Answers a COMMIT error by the application's own exception handlers.
        commits: Says of a response's status whether it is a success, which commits.
        frameworks: How the modules begin that catch what handlers raise: their answers to errors
            commit nothing, whatever their status.
    """

    __slots__ = ("_answer", "_app", "_commits", "_frameworks", "_name")

    def __init__(
        self,
        app: ASGIApp,
        database: Database,
        *,
        answer: Answer,
        commits: Callable[[int], bool] = lambda status: status < 400,
        frameworks: tuple[str, ...] = _FRAMEWORKS,
    ) -> None:
        self._app = app
        self._frameworks = frameworks
        self._name = database.name
        self._answer = answer
        self._commits = commits

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection."""
        if scope["type"] == "http":
            return self._http(scope, receive, send)
        if scope["type"] == "websocket":
            return self._websocket(scope, receive, send)
        return self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        unit = unit_of(scope, self._name)
        failed: Exception | None = None
        started = False
        complete = False
        body = _Body()
        around = sys.exception()  # what somebody handles who calls this application

        async def finish_then_send(message: Message) -> None:
            nonlocal failed, started, complete
            if message["type"] == "http.response.start":
                # A time limit around the handler may have answered in its place: no COMMIT then.
                succeeded = self._commits(message["status"]) and not unit.refused
                if succeeded and self._answers_error(around):
                    succeeded = False
                unit.succeeded = succeeded
                if unit.opened:
                    try:
                        await unit.finish(succeeded=succeeded)
                    except Exception as error:
                        failed = error
                        raise
                started = True
                body.start = message
            elif unit.autocommit and body.ends_with(message):
                if unit.dirty:
                    # A stream that used the session: its end is the promise that all is stored.
                    await unit.finish(succeeded=unit.succeeded is True)
                await send(message)
                complete = complete or is_last(message)
                return
            await send(message)

        try:
            await self._app(scope, receive, finish_then_send)
        except Exception as error:
            if failed is None or started:
                unit.succeeded = False
                await _roll_back(unit)  # a middleware may try again, and begins anew then
                raise
            del error  # whatever the application made of it, this is what is answered
        if failed is not None and not started:
            _log_failed_commit(unit, failed)
            await self._answer(scope, receive, send, failed)
        elif unit.autocommit and unit.dirty:
            # A stream that ended early did so because its client left: Starlette returns then.
            await _finish_late(unit, succeeded=complete and unit.succeeded is True)

    def _answers_error(self, around: BaseException | None) -> bool:
        """Whether a response is a framework's answer to what a handler raised.

        It is sent from inside of the `except` that caught the error, and the error's traceback begins
        there. What an application catches itself is its own affair.
        """
        error = sys.exception()
        if error is None or error is around or error.__traceback__ is None:
            return False
        caught_in: str = error.__traceback__.tb_frame.f_globals.get("__name__", "")
        return caught_in.startswith(self._frameworks)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        unit = unit_of(scope, self._name)
        accepted = closed = gone = False

        async def receive_and_note() -> Message:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "websocket.disconnect"
            return message

        async def finish_then_send(message: Message) -> None:
            nonlocal accepted, closed
            if message["type"] == "websocket.accept":
                accepted = True
            elif message["type"] in _ENDS_OF_SOCKET and not closed:
                closed = True
                # A close before the accept is a 403 to the client, whatever its code.
                succeeded = accepted and message.get("code", 1000) in _NORMAL
                try:
                    await unit.finish(succeeded=succeeded)
                except Exception as error:  # noqa: BLE001 - the client learns of it by the code
                    _log_failed_commit(unit, error)
                    message = {"type": "websocket.close", "code": _INTERNAL_ERROR}
            await send(message)

        try:
            await self._app(scope, receive_and_note, finish_then_send)
        except Exception:
            unit.succeeded = False
            raise
        if unit.autocommit and unit.dirty:
            try:
                await unit.finish(succeeded=accepted and unit.succeeded is not False)
            except Exception as error:  # noqa: BLE001 - answered by the close below
                if gone and isinstance(error, PendingRollbackError):
                    # The client left in the middle of a statement, which was cancelled.
                    logger.info("{}: rolled back, since the client has left", unit.origin)
                    return
                if closed:
                    _log_late_commit(unit, error)
                else:
                    _log_failed_commit(unit, error)
                    await send({"type": "websocket.close", "code": _INTERNAL_ERROR})


class _Body:
    """The body of a response, and how much of it has left."""

    __slots__ = ("_length", "_sent", "start")

    def __init__(self) -> None:
        #: The start of the response.
        self.start: Message | None = None
        self._sent = 0
        self._length: float | None = None

    def ends_with(self, message: Message) -> bool:
        """Whether it is whole for the client with this message: the last byte, where it knows it."""
        if is_last(message):
            return True
        self._sent += len(message.get("body", b""))
        if self._length is None:
            self._length = _length_of(self.start)
        return self._sent >= self._length


def _length_of(start: Message | None) -> float:
    """The content-length of a response; endless where it has none."""
    for name, value in (start or {}).get("headers", ()):
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return float("inf")


def is_last(message: Message) -> bool:
    """Whether a message is the last one of a response."""
    return message["type"] in _BODIES and not message.get("more_body", False)


async def _roll_back(unit: UnitOfWork) -> None:
    """Roll back for an error that is on its way; where that fails, the release ends the session."""
    try:
        await unit.finish(succeeded=False)
    except Exception as error:  # noqa: BLE001 - the error that is on its way is the one to tell
        logger.warning("{}: the rollback failed: {}", unit.origin, safe_error(error))


async def _finish_late(unit: UnitOfWork, *, succeeded: bool) -> None:
    """Commit what a background task did after the response; nobody is left to be told."""
    try:
        await unit.finish(succeeded=succeeded)
    except Exception as error:  # noqa: BLE001 - the response has left
        _log_late_commit(unit, error)


def _log_late_commit(unit: UnitOfWork, error: Exception) -> None:
    logger.error("{}: the COMMIT after the response failed: {}", unit.origin, safe_error(error))


def _log_failed_commit(unit: UnitOfWork, error: Exception) -> None:
    level = level_for(answer_for(error).status)
    logger.log(level, "{}: COMMIT failed: {}", unit.origin, safe_error(error))
