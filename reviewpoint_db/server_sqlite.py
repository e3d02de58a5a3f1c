"""What there is to know of a SQLite file: its sizes, its settings, and who has its write lock."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reviewpoint_db.holder import HolderSnapshot
from reviewpoint_db.server_rows import ServerConnection
from reviewpoint_db.statements import BEGIN

if TYPE_CHECKING:
    from reviewpoint_db.config import DatabaseConfig

__all__ = ["look_at_file"]

_PRAGMAS: Final = (
    "journal_mode",
    "synchronous",
    "foreign_keys",
    "busy_timeout",
    "wal_autocheckpoint",
    "page_size",
    "page_count",
    "freelist_count",
)


async def look_at_file(
    driver: Any, config: DatabaseConfig, holders: tuple[HolderSnapshot, ...]
) -> tuple[dict[str, Any], list[ServerConnection]]:
    """Read the file's sizes and pragmas, and tell from our holders who waits for the write lock.

    SQLite says nothing of other processes: who they are is not known here.

    Args:
        driver: A connection of aiosqlite.
        config: Names the file.
        holders: Those of this process.
    """
    figures: dict[str, Any] = {}
    async with driver.execute("PRAGMA database_list") as cursor:
        path = (await cursor.fetchone())[2]
    for pragma in _PRAGMAS:
        async with driver.execute(f"PRAGMA {pragma}") as cursor:
            figures[pragma] = (await cursor.fetchone())[0]
    sizes = await asyncio.to_thread(_sizes, Path(path))
    figures |= {"file": ":memory:" if config.in_memory else config.sqlalchemy_url.database, **sizes}
    return figures, _connections(holders)


def _sizes(path: Path) -> dict[str, int]:
    wal = path.with_name(f"{path.name}-wal")
    return {
        "size": path.stat().st_size,
        "wal_size": wal.stat().st_size if wal.exists() else 0,
    }


def _connections(holders: tuple[HolderSnapshot, ...]) -> list[ServerConnection]:
    """Take our holders for connections; those that begin wait for the one that has begun."""
    waiting = {
        holder.number for holder in holders if (holder.state, holder.statement) == ("active", BEGIN)
    }
    # Every transaction begins IMMEDIATE; read sessions have none, and block nobody.
    writers = tuple(
        holder.number
        for holder in holders
        if holder.in_transaction and holder.number not in waiting
    )
    return [
        ServerConnection(
            pid=holder.number,
            application="",
            state=holder.state,
            state_for=holder.state_for,
            statement=holder.statement,
            waits_for="the write lock" if holder.number in waiting else None,
            blocked_by=writers if holder.number in waiting else (),
            holder=holder,
        )
        for holder in holders
    ]
