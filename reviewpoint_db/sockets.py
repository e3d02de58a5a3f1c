"""What a WebSocket is told when its database is unavailable: 503 before the accept, 1013 after it.

A request would be answered with 503 and Retry-After. A handshake is answered alike where the server
offers ASGI's extension for that; a WebSocket that was accepted is closed with the code that says the
same. https://asgi.readthedocs.io/en/latest/extensions.html#websocket-denial-response
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from loguru import logger

from reviewpoint_db.answer_log import log_answer
from reviewpoint_db.asgi_types import Message, Scope, Send
from reviewpoint_db.logs import mark_as_logged
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.sqlstate import (
    ErrorAnswer,
    answer_for,
    is_of_database,
    retry_after_header,
)

__all__ = ["Deny", "SocketRefusal", "note_failure"]

#: Answers a handshake as the application answers a request.
Deny = Callable[[Scope, Send, ErrorAnswer], Awaitable[None]]

_REFUSAL: Final = "reviewpoint_db_socket"
#: https://www.iana.org/assignments/websocket/websocket.xml#close-code-number
_TRY_AGAIN_LATER: Final = 1013
_DENIAL: Final = "websocket.http.response"


class SocketRefusal:
    """Answers for one WebSocket in place of an application that failed for want of a database.

    Args:
        scope: The WebSocket's.
        send: Where its messages go.
        retry_after: What a 503 asks the client to wait, in seconds.
        deny: Answers a handshake in the application's own shape; None for Litestar's.
    """

    __slots__ = ("_closed", "_deny", "_may_deny", "_open", "_retry_after", "_send", "failure")

    def __init__(
        self, scope: Scope, send: Send, retry_after: float, deny: Deny | None = None
    ) -> None:
        self._deny = None if deny is None else partial(deny, scope)
        self._may_deny = _DENIAL in (scope.get("extensions") or {})
        self._send = send
        self._retry_after = retry_after
        self._open = False
        self._closed = False
        #: What a framework is about to close the WebSocket for by itself.
        self.failure: Exception | None = None
        scope[_REFUSAL] = self

    async def send(self, message: Message) -> None:
        """Pass a message of the application on; a close because of an outage gets a code that says so."""
        kind = message["type"]
        if kind == "websocket.close" and self.failure is not None:
            failure, self.failure = self.failure, None
            if await self.refuse(failure):
                return
        if kind == "websocket.accept":
            self._open = True
        elif kind != "websocket.send":
            self._closed = True
        await self._send(message)

    def leave(self, scope: Scope) -> None:
        """Let go of a WebSocket that is over: its `send` has the scope, in most servers."""
        if scope.get(_REFUSAL) is self:
            del scope[_REFUSAL]
        self.failure = self._deny = None

    async def refuse(self, error: Exception) -> bool:
        """Answer an error that nobody answered; False where it is none that may pass."""
        if self._closed or not is_of_database(error):
            return False
        answer = answer_for(error, retry_after=self._retry_after)
        if answer.retry_after is None:
            return False
        self._closed = True
        if not mark_as_logged(error):
            log_answer(error, answer.status)
        if self._open or not self._may_deny:
            close = {"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": answer.detail}
            await self._send(close)
        else:
            for message in await self._denial(answer, answer.retry_after):
                await self._send(message)
        return True

    async def _denial(self, answer: ErrorAnswer, retry_after: float) -> Sequence[Message]:
        made: list[Message] = []

        async def make(message: Message) -> None:
            made.append(message)

        if self._deny is not None:
            try:
                await self._deny(make, answer)
            except Exception as error:  # noqa: BLE001 - the handler of an application, for requests
                logger.debug("A WebSocket was not answered as a request: {}", safe_error(error))
        complete = made and not made[-1].get("more_body", False)
        if complete and [one["type"] for one in made[:2]] == [
            f"{_DENIAL}.start",
            f"{_DENIAL}.body",
        ]:
            return made
        return _denial(answer, retry_after)


def _denial(answer: ErrorAnswer, retry_after: float) -> tuple[Message, Message]:
    body = json.dumps({"status_code": answer.status, "detail": answer.detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", retry_after_header(retry_after).encode()),
    ]
    return (
        {"type": f"{_DENIAL}.start", "status": answer.status, "headers": headers},
        {"type": f"{_DENIAL}.body", "body": body},
    )


def note_failure(scope: Any, error: Exception) -> None:
    """Note why a framework is about to close a WebSocket, where it swallows the exception.

    Args:
        scope: Of a request, which is left alone, or of a WebSocket.
        error: What the application raised.
    """
    refusal: SocketRefusal | None = scope.get(_REFUSAL)
    if refusal is not None:
        refusal.failure = error
