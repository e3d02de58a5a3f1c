"""What the pool and the engine need to know of a driver, in one small interface.

`postgresql.py` (asyncpg) and `sqlite.py` (aiosqlite) implement it.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["READ_ONLY", "REPLICA", "WRITE_REFUSED", "Backend"]

#: The execution option of a read session's engine.
READ_ONLY: Final = "reviewpoint_db_read_only"
#: Marks the dialect of a replica's engine.
REPLICA: Final = "_reviewpoint_db_replica"
#: What a read session says to a change.
WRITE_REFUSED: Final = (
    "A read session was asked to write. Use db_session (or database.session()) for changes."
)


class Backend(Protocol):
    """The questions that SQLAlchemy's dialects do not answer without a round trip."""

    #: Whether an idle connection can die without the driver noticing it.
    needs_ping: bool
    #: Whether a refused password may be the old one of a rotation under way, and pass.
    password_rotates: bool

    def is_closed(self, driver: Any) -> bool:
        """Whether the driver already knows that the connection is gone. No I/O."""

    def lost_file(self, driver: Any) -> str | None:
        """The file behind the connection, when it was removed or another one is in its place."""

    def in_transaction(self, driver: Any) -> bool:
        """Whether a transaction is open on the connection. No I/O."""

    def is_rolled_back(self, driver: Any) -> bool:
        """Whether an error has ended the transaction that it happened in. No I/O."""

    def check_commit(self, connection: Any) -> None:
        """Raise when COMMIT would store nothing; asked in a greenlet, and after an error only.

        Args:
            connection: As SQLAlchemy adapted it.
        """

    def pid(self, driver: Any) -> int | None:
        """The server's process behind the connection, where there is one. No I/O."""

    def refuses_writes(self, driver: Any) -> bool:
        """Whether a refused write was the server's doing: not that of the transaction. No I/O."""

    async def ping(self, driver: Any, timeout: float) -> None:
        """Make one round trip within `timeout` seconds, or raise."""

    async def close(self, driver: Any, timeout: float) -> None:
        """Close gracefully for at most `timeout` seconds, then hard."""

    def terminate(self, driver: Any) -> None:
        """Cut the connection at once, without a word to the server."""

    def interrupt(self, driver: Any) -> None:
        """Stop what a cancelled task left running on the connection, without waiting."""

    def abandon(self, driver: Any) -> None:
        """Cut a connection whose event loop is closed."""

    def prepare_engine(self, engine: AsyncEngine) -> None:
        """Attach the listeners that this driver needs."""
