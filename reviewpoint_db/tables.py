"""A first table without ceremony: what is missing is created when the application starts."""

from __future__ import annotations

import asyncio
from typing import Final

from loguru import logger
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.errors import ConfigurationError, UnavailableError
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.settings import refuse

__all__ = ["MissingTables", "check_metadata", "create_missing"]

#: Seconds between two attempts while the database is away.
_RETRY: Final = 1.0
#: PostgreSQL has no CREATE TABLE that waits for another one: `IF NOT EXISTS` fails at its commit.
_ONE_AT_A_TIME: Final = text("SELECT pg_advisory_xact_lock(hashtext('reviewpoint_db create_all'))")


async def create_missing(engine: AsyncEngine, metadata: MetaData) -> None:
    """Create the tables that are missing, one process after the other.

    Args:
        engine: Whose dialect knows how; on PostgreSQL a lock makes the others wait.
        metadata: The tables.
    """
    locked = engine.dialect.name == "postgresql"  # CockroachDB has no such locks
    if locked:
        # Who waited for the lock sees what the former holder made, which other levels hide.
        engine = engine.execution_options(isolation_level="READ COMMITTED")

    def create(connection: Connection) -> None:
        if locked:
            connection.execute(_ONE_AT_A_TIME)
        metadata.create_all(connection)

    async with engine.begin() as connection:
        await connection.run_sync(create)


def check_metadata(metadata: object) -> None:
    """Refuse what holds no tables.

    Raises:
        ConfigurationError: It is a declarative base, say, and not its `metadata`.
    """
    if metadata is None or isinstance(metadata, MetaData):
        return
    fix = "give a sqlalchemy.MetaData"
    shown = f"a {type(metadata).__name__}"
    if isinstance(metadata, type) and isinstance(getattr(metadata, "metadata", None), MetaData):
        shown, fix = f"the class {metadata.__name__}", f"give {metadata.__name__}.metadata"
    raise refuse("metadata", shown, "not a MetaData", fix)


class MissingTables:
    """The tables that `create_all=True` creates.

    Args:
        config: Whose environment decides whether that is allowed.
        metadata: The tables.

    Raises:
        ConfigurationError: In prod, or without metadata.
    """

    def __init__(self, config: DatabaseConfig, metadata: MetaData | None) -> None:
        if metadata is None:
            raise ConfigurationError(
                "create_all=True needs to know the tables: pass metadata=Base.metadata as well."
            )
        if config.effective_environment == "prod":
            raise ConfigurationError(
                "create_all=True is refused in prod, where tables change by migrations: run "
                "`litestar database upgrade` (or `reviewpoint-db upgrade`) and leave create_all out."
            )
        self._metadata = metadata

    async def create(self, engine: AsyncEngine) -> bool:
        """Create what is missing; False when the database is away."""
        try:
            await create_missing(engine, self._metadata)
        except UnavailableError as error:
            logger.warning("Tables are created once the database is there: {}", safe_error(error))
            return False
        return True

    async def create_later(self, engine: AsyncEngine) -> None:
        """Try again until the database is there; ended by the database's stop."""
        try:
            # ASYNC110: no event says that a database is back.
            while not await self.create(engine):  # noqa: ASYNC110
                await asyncio.sleep(_RETRY)
        except Exception as error:  # noqa: BLE001  metadata is foreign code
            # Nobody awaits this task, so nobody else would tell.
            logger.error("Could not create the missing tables: {}", safe_error(error))
