"""Where a database stands among its alembic migrations."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from reviewpoint_db.backend import READ_ONLY

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ("Migrations",)


class Migrations(msgspec.Struct, frozen=True, kw_only=True):
    """Where alembic's scripts and its table are.

    Args:
        script_location: The folder of `env.py` and `versions`.
        version_table: The table that holds the database's revision (advanced-alchemy's default).
        version_table_schema: Its schema; None for the connection's default.
    """

    script_location: str = "migrations"
    version_table: str = "alembic_versions"
    version_table_schema: str | None = None

    def present(self) -> bool:
        """Whether there are any scripts."""
        return Path(self.script_location, "env.py").is_file()

    @classmethod
    def of(cls, config: Any) -> Migrations:
        """Read them off a config of advanced-alchemy."""
        alembic = config.alembic_config
        return cls(
            script_location=str(alembic.script_location),
            version_table=alembic.version_table_name,
            version_table_schema=alembic.version_table_schema,
        )

    async def state_of(self, engine: AsyncEngine) -> tuple[set[str], set[str]]:
        """Return the revisions that the database is at, and those that the scripts lead to."""
        heads = await asyncio.to_thread(self._heads)
        async with engine.connect() as connection:
            # Looking must not queue behind whoever writes to a SQLite file.
            await connection.execution_options(**{READ_ONLY: True})
            return await connection.run_sync(self._current), heads

    def _heads(self) -> set[str]:
        from alembic.script import ScriptDirectory

        return set(ScriptDirectory(self.script_location).get_heads())

    def _current(self, connection: Connection) -> set[str]:
        from alembic.migration import MigrationContext

        options = {
            "version_table": self.version_table,
            "version_table_schema": self.version_table_schema,
        }
        return set(MigrationContext.configure(connection, opts=options).get_current_heads())
