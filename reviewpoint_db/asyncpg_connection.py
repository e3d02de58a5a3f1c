"""asyncpg's connection, whose COMMIT raises when it stored nothing."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final

import asyncpg
from sqlalchemy.exc import InvalidRequestError

__all__ = ["NOTHING_STORED", "CheckedConnection"]

NOTHING_STORED: Final = (
    "Nothing was stored: an earlier error of this transaction has undone all of it. To go on after "
    "a statement's error, put that statement into `async with session.begin_nested()`."
)


class CheckedConnection(asyncpg.Connection):  # type: ignore[misc]  # it has no annotations
    """A connection that reads the server's answer to COMMIT, which asyncpg does not.

    An error that the application met by the driver itself (a COPY, say) and caught is known to the
    server alone: it answers the COMMIT with "ROLLBACK".
    """

    __slots__ = ()

    # No coroutine of its own: BEGIN, ROLLBACK and the ping go this way too.
    def execute(self, query: str, *args: Any, timeout: float | None = None) -> Awaitable[str]:
        """Like `asyncpg.Connection.execute`.

        Raises:
            InvalidRequestError: When awaited: the COMMIT of asyncpg's transaction was a rollback.
        """
        executed: Awaitable[str] = super().execute(query, *args, timeout=timeout)
        return _checked(executed) if query == "COMMIT;" else executed


async def _checked(commit: Awaitable[str]) -> str:
    status = await commit
    if status == "ROLLBACK":
        raise InvalidRequestError(NOTHING_STORED)
    return status
