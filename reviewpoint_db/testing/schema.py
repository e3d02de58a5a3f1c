"""Fills a database with what the project's fixtures name: its tables, its migrations, its seed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.schema import CreateIndex, CreateSchema, CreateTable

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.testing.errors import TestingConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from reviewpoint_db.testing.thread import LoopThread

__all__ = ["Schema", "Seed"]

Seed = Callable[[AsyncSession], Awaitable[object]]
#: Seconds that all migrations together may take.
_MIGRATIONS_TIMEOUT: Final = 600.0


class Schema:
    """What a new database is filled with.

    Args:
        metadata: Its tables are created, and the schemas that they are in; None where migrations
            make them. A base class of models stands for its own.
        alembic_config: alembic's `Config` or the path of its ini file; or advanced-alchemy's
            `AlembicAsyncConfig`, or a whole configuration of its, ours included.
        seed: Adds rows; they are committed.
    """

    def __init__(self, metadata: Any, alembic_config: Any = None, seed: Seed | None = None) -> None:
        if metadata is None and alembic_config is None:
            raise TestingConfigurationError(
                "The testing kit does not know your tables. Give one of these session-scoped "
                "fixtures in conftest.py: `db_metadata`, which returns a SQLAlchemy MetaData "
                "(Base.metadata, say), or `db_alembic_config`, which returns alembic's Config or "
                "the path of alembic.ini."
            )
        metadata = getattr(metadata, "metadata", metadata)
        if not isinstance(metadata, MetaData | None):
            raise TestingConfigurationError(
                f"`db_metadata` returns {type(metadata).__name__}; it has to return a SQLAlchemy "
                "MetaData: Base.metadata, where Base is the base class of your models."
            )
        self._metadata = metadata
        self._alembic_config = alembic_config
        self._seed = seed

    def fill(self, url: str, owner: LoopThread) -> None:
        """Fill a database; blocks.

        Args:
            url: An empty one.
            owner: The loop that talks to it.
        """
        if self._alembic_config is not None:
            _in_a_thread(lambda: _migrate(self._alembic_config, url))
        owner.run(self._fill(url))

    def fingerprint(self, url: str) -> str:
        """Return a word that changes with the tables, or with the migrations.

        Args:
            url: A database of the kind that is to be filled.
        """
        if self._alembic_config is not None:
            parts = _migrations(self._alembic_config, url)
        else:
            assert self._metadata is not None
            parts = _definitions(self._metadata, url)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    async def _fill(self, url: str) -> None:
        async with Database(DatabaseConfig(url=url, environment="test")) as database:
            if self._alembic_config is None and self._metadata is not None:
                async with database.engine.begin() as connection:
                    await _create_schemas(connection, self._metadata)
                    await connection.run_sync(self._metadata.create_all)
            if self._seed is not None:
                async with database.session() as session:
                    await self._seed(session)
                    await session.commit()


async def _create_schemas(connection: AsyncConnection, metadata: MetaData) -> None:
    """Create the schemas that tables are in: in a new database there are none but the server's."""
    names = sorted({table.schema for table in metadata.tables.values() if table.schema})
    if names and connection.dialect.name == "sqlite":
        raise TestingConfigurationError(
            f"Your tables are in the schema {names[0]!r}, and SQLite has no schemas: test on "
            "PostgreSQL. Without a URL of SQLite, the tests have an embedded one: "
            "pip install 'reviewpoint-db[testing]'."
        )
    for name in names:
        await connection.execute(CreateSchema(name, if_not_exists=True))


def _migrate(config: Any, url: str) -> None:
    commands = _commands(config, url)
    if commands is not None:
        commands.upgrade()
        return
    from alembic import command

    command.upgrade(_config(config, url), "head")


def _migrations(config: Any, url: str) -> Iterator[str]:
    """Yield the migrations' sources."""
    from alembic.script import ScriptDirectory

    commands = _commands(config, url)
    found = commands.config if commands is not None else _config(config, url)
    for revision in ScriptDirectory.from_config(found).walk_revisions():
        yield Path(revision.path).read_text()


def _commands(config: Any, url: str) -> Any:
    """Return advanced-alchemy's commands where the configuration is one of its; else None."""
    if hasattr(config, "version_table_name"):  # what a plugin takes as `alembic_config`
        from advanced_alchemy.config import SQLAlchemyAsyncConfig

        config = SQLAlchemyAsyncConfig(connection_string=_normal(url), alembic_config=config)
    if not hasattr(config, "alembic_config"):
        return None
    from advanced_alchemy.alembic.commands import AlembicCommands

    return AlembicCommands(sqlalchemy_config=config)


def _config(config: Any, url: str) -> Any:
    """Return alembic's configuration, with the URL in it."""
    from alembic.config import Config

    made = Config(str(config)) if isinstance(config, str | Path) else config
    made.set_main_option("sqlalchemy.url", _normal(url).replace("%", "%%"))
    return made


def _normal(url: str) -> str:
    return DatabaseConfig(url=url).sqlalchemy_url.render_as_string(hide_password=False)


def _definitions(metadata: MetaData, url: str) -> Iterator[str]:
    """Yield what makes the tables."""
    dialect = DatabaseConfig(url=url).sqlalchemy_url.get_dialect()()
    for _, table in sorted(metadata.tables.items()):
        yield str(CreateTable(table).compile(dialect=dialect))
        for index in sorted(table.indexes, key=lambda index: index.name or ""):
            yield str(CreateIndex(index).compile(dialect=dialect))
        for column in table.columns:
            kind = getattr(column.type, "item_type", column.type)  # an array's
            yield str(getattr(kind, "enums", ""))  # which are a type of their own


def _in_a_thread(work: Callable[[], None], timeout: float = _MIGRATIONS_TIMEOUT) -> None:
    """Run `work` where no event loop runs, for `timeout` seconds: an env.py calls asyncio.run()."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, name="reviewpoint_db-migrations", daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise TimeoutError(
            f"The migrations of the tests' database did not end within {timeout:g} s. Does one wait "
            "for a lock, or for an answer?"
        )
    if errors:
        raise errors[0]
