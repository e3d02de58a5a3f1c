"""advanced-alchemy on our engine and sessions, and its configuration accepted as it is.

An application written for `advanced_alchemy.extensions.litestar.SQLAlchemyPlugin` swaps two names:

    alchemy = SQLAlchemyAsyncConfig(connection_string=..., before_send_handler="autocommit")
    app = Litestar(..., plugins=[ReviewPointDBPlugin(alchemy)])

with `SQLAlchemyAsyncConfig` from here. What it says stays true: keys, `bind_key`, `metadata`,
`create_all`, `session_config`, an `engine_instance` or `session_maker` set at any time before the
start, and which statuses are committed. What changes is what happens when things fail.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import msgspec
from advanced_alchemy.base import metadata_registry
from advanced_alchemy.extensions.litestar import AlembicAsyncConfig
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig as _AlchemyConfig
from advanced_alchemy.extensions.litestar._utils import get_aa_scope_state, set_aa_scope_state
from loguru import logger
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from reviewpoint_db.asgi import unit_of
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.engine import adopt_engine
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.litestar.commit import CommitRule, commit_rule
from reviewpoint_db.litestar.listeners import configure_sessions
from reviewpoint_db.redaction import safe_error, safe_url
from reviewpoint_db.tables import create_missing

if TYPE_CHECKING:
    from litestar import Litestar
    from litestar.datastructures import State
    from litestar.types import Message, Scope
    from sqlalchemy import MetaData

__all__ = ("SQLAlchemyAsyncConfig", "leave_to_unit_of_work", "own_config")

# advanced-alchemy's names for what our pool has a setting of its own for.
_POOL_FIELDS = {
    "pool_size": "size",
    "max_overflow": "max_overflow",
    "pool_timeout": "timeout",
    "pool_reset_on_return": "reset_on_return",
}
# Our pool verifies connections, and hands out the one that was used last, by itself.
_DONE_BY_THE_POOL = ("pool_pre_ping", "pool_use_lifo", "hide_parameters")


async def leave_to_unit_of_work(message: Message, scope: Scope) -> None:
    """Do nothing, where advanced-alchemy would close the session at the response's start."""


class SQLAlchemyAsyncConfig(_AlchemyConfig):
    """advanced-alchemy's configuration for Litestar, with our engine and sessions behind it.

    All fields are advanced-alchemy's. `bind_key` is the database's name ("default" without one).

    Example:
        >>> alchemy = SQLAlchemyAsyncConfig(
        ...     connection_string="postgresql+asyncpg://ann:secret@localhost/papers",
        ...     before_send_handler="autocommit",
        ... )
        >>> plugin = ReviewPointDBPlugin(alchemy)
    """

    def __post_init__(self) -> None:
        if self.routing_config is not None:
            msg = (
                "routing_config = RoutingConfig(...): not supported. Fix: read from the replicas by "
                "`db_read_session`, with REVIEWPOINT_DB_READ_URL or DatabaseConfig(read_url=...)."
            )
            raise ConfigurationError(msg)
        self._given = self.before_send_handler
        super().__post_init__()
        self._made_of_it = self.before_send_handler
        self._rule: CommitRule | None = None
        self._database: Database | None = None

    def __repr__(self) -> str:
        # advanced-alchemy's shows the connection string with its password.
        url = self.connection_string and safe_url(self.connection_string)
        return f"{type(self).__name__}(bind_key={self.bind_key!r}, connection_string={url!r})"

    def use(self, database: Database) -> None:
        """Stand for a database that exists already."""
        self._database = database
        configure_sessions(database.sessionmaker, self)

    @property
    def database(self) -> Database:
        """The database behind this configuration, made when it is first asked for."""
        if self._database is None:
            database = _AlchemyDatabase(self._database_config(), engine=self._foreign_engine)
            self.use(database)
            return database
        return self._database

    def serve(self) -> CommitRule:
        """Leave the sessions' end to the unit of work from now on.

        Returns:
            What `before_send_handler` asks for, in our terms.
        """
        handler = self.before_send_handler
        if self._rule is None or handler is not leave_to_unit_of_work:
            self._rule = commit_rule(self._given if handler is self._made_of_it else handler)
            if self._rule.hook is None:
                self.before_send_handler = leave_to_unit_of_work
        return self._rule

    # What advanced-alchemy, its commands and its users call.

    def get_engine(self) -> AsyncEngine:
        """Return the engine that was set, else the running loop's."""
        if self.engine_instance is not None:
            return self.engine_instance
        return self.database.engine

    def create_session_maker(self) -> Callable[[], AsyncSession]:
        """Return the session maker that was set, else the database's."""
        if self.session_maker is not None:
            return self.session_maker
        return self.database.sessionmaker

    @asynccontextmanager
    async def get_session(self) -> AsyncGenerator[AsyncSession, None]:
        """Open a session for a block, which commits for itself; it is released in any case."""
        session = self.create_session_maker()()
        try:
            yield session
        finally:
            await self.database.end(session)

    def provide_session(self, state: State, scope: Scope) -> AsyncSession:
        """Return the session of the request's unit of work.

        Args:
            state: The application's state, asked at each call for its session maker.
            scope: The request's or WebSocket's scope.
        """
        session: AsyncSession | None = get_aa_scope_state(scope, self.session_scope_key)
        if session is not None:
            return session
        try:
            session = unit_of(cast("Any", scope), self.database.name).session
        except ConfigurationError:  # outside of a request that our middleware serves
            return super().provide_session(state, scope)
        set_aa_scope_state(scope, self.session_scope_key, session)
        return session

    def new_session(self, scope: Scope) -> AsyncSession:
        """Make the session of a request by the maker that the application's state has now."""
        state = scope["litestar_app"].state
        maker = state.get(self.session_maker_app_state_key) or self.create_session_maker()
        if maker is self.database.sessionmaker:
            return self.database.open_session()  # counted
        session: AsyncSession = maker()
        return session

    @asynccontextmanager
    async def lifespan(self, app: Litestar) -> AsyncGenerator[None, None]:
        """Put engine and session maker into the application's state, and create what is missing."""
        if self._rule is None:  # advanced-alchemy's own plugin has it
            async with super().lifespan(app):
                yield
            return
        self.update_app_state(app)
        if self.create_all:
            await self.create_all_metadata(app)
        yield

    async def create_all_metadata(self, app: Litestar) -> None:  # noqa: ARG002  their signature
        """Create the tables that are missing; a database that cannot be reached is logged."""
        try:
            await create_missing(self.get_engine(), metadata_registry.get(self.bind_key))
        except OperationalError as error:
            logger.error("Could not create the missing tables: {}", safe_error(error))

    def _foreign_engine(self) -> AsyncEngine | None:
        """The engine that is not ours to make."""
        if self.engine_instance is not None:
            return self.engine_instance
        if self.create_engine_callable is not create_async_engine:
            return super().get_engine()
        return None

    def _database_config(self) -> DatabaseConfig:
        url = self.connection_string
        if self.engine_instance is not None:
            url = self.engine_instance.url.render_as_string(hide_password=False)
        environ = dict(os.environ)
        if url is not None:
            environ = {k: v for k, v in environ.items() if k == "REVIEWPOINT_ENVIRONMENT"}
            environ["REVIEWPOINT_DB_URL"] = url
        config = DatabaseConfig.from_env(environ)
        return msgspec.structs.replace(config, **self._settings(config))

    def _settings(self, config: DatabaseConfig) -> dict[str, Any]:
        options = dict(self.engine_config_dict)
        pool = {name: options.pop(old) for old, name in _POOL_FIELDS.items() if old in options}
        lifetime = options.pop("pool_recycle", -1)
        if lifetime > 0:
            pool["max_lifetime"] = lifetime
        for name in _DONE_BY_THE_POOL:
            options.pop(name, None)
        return {
            "name": self.bind_key or config.name,
            "pool": PoolConfig(**pool) if pool else config.pool,
            "engine_options": {**config.engine_options, **options},
            "session_class": self.session_config_dict.get("class_") or config.session_class,
        }


class _AlchemyDatabase(Database):
    """A database whose engine may be somebody else's.

    Args:
        config: The settings.
        engine: Returns the engine, or None where it is ours to make.
    """

    def __init__(self, config: DatabaseConfig, *, engine: Callable[[], AsyncEngine | None]) -> None:
        super().__init__(config)
        self._foreign_engine = engine

    def _create_engine(self) -> AsyncEngine:
        foreign = self._foreign_engine()
        return adopt_engine(foreign, self.config) if foreign else super()._create_engine()


class _OwnConfig(SQLAlchemyAsyncConfig):
    """What advanced-alchemy gets to see of a plugin that was given a `DatabaseConfig`."""

    def _ensure_unique(
        self, registry_name: str, key: str, new_key: str | None = None, _iter: int = 0
    ) -> str:
        # advanced-alchemy numbers equal keys through the whole process, and recurses to do so;
        # here they only have to differ within one application, and the plugin sees to that.
        del registry_name, new_key, _iter
        return key


def own_config(
    database: Database,
    *,
    session_key: str,
    metadata: MetaData | None,
    alembic_config: AlembicAsyncConfig | None,
) -> SQLAlchemyAsyncConfig:
    """Make the configuration that hands a database of ours to advanced-alchemy.

    Args:
        database: What it stands for.
        session_key: The handlers' name of the session.
        metadata: The tables, for migrations. None: advanced-alchemy's own.
        alembic_config: Where migrations are, and how they are made.
    """
    default = database.name == "default"
    suffix = "" if default else f"_{database.name}"
    config = _OwnConfig(
        session_dependency_key=session_key,
        engine_dependency_key=f"db_engine{suffix}",
        engine_app_state_key=f"db_engine{suffix}",
        session_maker_app_state_key=f"session_maker_class{suffix}",
        session_scope_key=f"_reviewpoint_db_session{suffix}",
        bind_key=None if default else database.name,
        metadata=metadata,
        alembic_config=alembic_config or AlembicAsyncConfig(),
    )
    config.use(database)
    return config
