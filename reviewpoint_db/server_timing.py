"""The Server-Timing header, in dev: a browser's own tools show a request's time in the database.

https://www.w3.org/TR/server-timing/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reviewpoint_db.asgi_types import Message, Send
    from reviewpoint_db.transaction import UnitOfWork

__all__ = ["telling_times", "timing_of"]


def telling_times(unit: UnitOfWork, send: Send) -> Send:
    """Return a `send` that adds the header to the response's start.

    Args:
        unit: The request's, whose statements until then are counted.
        send: The server's.
    """

    async def tell_then_send(message: Message) -> None:
        if message["type"] == "http.response.start" and (value := timing_of(unit)):
            headers = [*message.get("headers", ()), (b"server-timing", value.encode())]
            message = {**message, "headers": headers}
        await send(message)

    return tell_then_send


def timing_of(unit: UnitOfWork) -> str:
    """Return the header's value: `db;dur=3.1;desc="2 statements"`, in milliseconds; or nothing."""
    works = unit.works
    statements = sum(work.statements for work in works)
    if not statements:
        return ""
    seconds = sum(work.seconds for work in works)
    waited = sum(work.waited for work in works)
    count = "1 statement" if statements == 1 else f"{statements} statements"
    return (
        f'db;dur={seconds * 1000:.1f};desc="{count}", '
        f'db-wait;dur={waited * 1000:.1f};desc="waiting for a connection"'
    )
