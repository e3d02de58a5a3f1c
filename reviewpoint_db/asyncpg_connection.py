"""asyncpg's connection, whose COMMIT raises when it stored nothing."""

from __future__ import annotations

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

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Like `asyncpg.Connection.execute`.

        Raises:
            InvalidRequestError: The COMMIT of asyncpg's transaction was a rollback.
        """
        status: str = await super().execute(query, *args, timeout=timeout)
        if status == "ROLLBACK" and query == "COMMIT;":
            raise InvalidRequestError(NOTHING_STORED)
        return status
