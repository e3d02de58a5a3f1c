"""The plugin: a database in one line, `Litestar(..., plugins=[ReviewPointDBPlugin()])`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from advanced_alchemy.extensions.litestar import (
    AlembicAsyncConfig,
    SQLAlchemyInitPlugin,
    SQLAlchemyPlugin,
    SQLAlchemySerializationPlugin,
)
from litestar.plugins import CLIPlugin

from reviewpoint_db import logs
from reviewpoint_db.adapters import checked_guards, checked_path
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.endpoints.access import Access
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.litestar.alchemy import SQLAlchemyAsyncConfig, own_config
from reviewpoint_db.litestar.binding import Binding
from reviewpoint_db.litestar.commit import CommitRule
from reviewpoint_db.litestar.setup import Setup
from reviewpoint_db.settings import refuse
from reviewpoint_db.transaction import checked_commit

if TYPE_CHECKING:
    from click import Group
    from litestar.config.app import AppConfig
    from litestar.types import Guard
    from sqlalchemy import MetaData

    from reviewpoint_db.transaction import CommitMode

__all__ = ("ReviewPointDBPlugin",)

AlchemyConfigs = SQLAlchemyAsyncConfig | Sequence[SQLAlchemyAsyncConfig]


class ReviewPointDBPlugin(SQLAlchemyPlugin, CLIPlugin):
    """Gives a Litestar application a database: sessions, health routes, commands, start and stop.

    Handlers get `db_session` and `db_read_session`; nothing of a request is stored unless the
    handler commits (`commit="manual"`) or its response is a success (`commit="autocommit"`). Two
    databases need two plugins with different `DatabaseConfig.name`, `path` and session keys.

    Example:
        >>> @get("/")
        ... async def index(db_session: AsyncSession) -> dict[str, int]:
        ...     return {"answer": (await db_session.execute(text("select 42"))).scalar_one()}
        >>> app = Litestar(route_handlers=[index], plugins=[ReviewPointDBPlugin()])

    Args:
        config: The settings; None reads them from the environment. Or the configuration of an
            application written for advanced-alchemy's plugin, or a list of these.
        path: What the routes are below; None for no routes. The second and later configurations of
            a list have theirs below `{path}/{bind_key}`.
        session_key: The handlers' name of the session.
        read_session_key: The handlers' name of the read session.
        commit: "manual": the handler commits, all else is rolled back. "autocommit": 2xx and 3xx
            commit, everything else rolls back.
        guards: Stand before the guarded routes (debug), which prod has only with them or a token.
            The application's middleware runs before them, so that they know who asks.
        debug_token: Asked for by the guarded routes; None takes REVIEWPOINT_DB_DEBUG_TOKEN.
        metadata: The tables, for migrations and `create_all`.
        create_all: Create the tables that are missing at the start; refused in prod.
        alembic_config: Where the migrations are that `litestar database` runs.
        include_in_schema: Show the routes in the application's OpenAPI schema.
        freeze_gc: Keep the garbage collector off all that the start-up made, while the application
            runs: shorter pauses. Of several plugins, one that says so is enough.

    Raises:
        ConfigurationError: A setting is wrong; the message names it and the way out.
    """

    def __init__(
        self,
        config: DatabaseConfig | AlchemyConfigs | None = None,
        *,
        path: str | None = "/db",
        session_key: str = "db_session",
        read_session_key: str = "db_read_session",
        commit: CommitMode = "manual",
        guards: Sequence[Guard] | None = None,
        debug_token: str | None = None,
        metadata: MetaData | None = None,
        create_all: bool = False,
        alembic_config: AlembicAsyncConfig | None = None,
        include_in_schema: bool = False,
        freeze_gc: bool = False,
    ) -> None:
        self._guards: tuple[Guard, ...] = checked_guards(guards)
        self._debug_token = debug_token
        self._include_in_schema = include_in_schema
        self._freeze_gc = freeze_gc
        path = None if path is None else checked_path(path)
        commit = checked_commit(commit)
        if config is None or isinstance(config, DatabaseConfig):
            _check_names(session_key=session_key, read_session_key=read_session_key)
            _check_alembic(alembic_config)
            own = own_config(
                Database(config, metadata=metadata, create_all=create_all),
                session_key=session_key,
                metadata=metadata,
                alembic_config=alembic_config,
            )
            configs = [own]
            own.serve()
            self.bindings = [self._bind(own, CommitRule(commit), path, read_session_key, own=True)]
        else:
            configs = _checked_configs(config)
            _refuse_what_they_say(
                session_key=session_key != "db_session",
                read_session_key=read_session_key != "db_read_session",
                commit=commit != "manual",
                metadata=metadata is not None,
                create_all=create_all,
                alembic_config=alembic_config is not None,
            )
            self.bindings = self._bind_theirs(configs, path)
        super().__init__(configs)

    def _bind_theirs(
        self, configs: Sequence[SQLAlchemyAsyncConfig], path: str | None
    ) -> list[Binding]:
        """Bind the databases of advanced-alchemy's configurations, the first at `path` itself."""
        return [
            self._bind(
                one,
                one.serve(),
                path if path is None or one is configs[0] else f"{path}/{one.database.name}",
                _read_key(one.session_dependency_key),
                own=False,
            )
            for one in configs
        ]

    def _bind(
        self,
        alchemy: SQLAlchemyAsyncConfig,
        rule: CommitRule,
        path: str | None,
        read_session_key: str,
        *,
        own: bool,
    ) -> Binding:
        return Binding(
            alchemy=alchemy,
            rule=rule,
            path=path,
            read_session_key=read_session_key,
            access=Access(
                alchemy.database.config,
                guards_given=bool(self._guards),
                debug_token=self._debug_token,
            ),
            guards=self._guards,
            include_in_schema=self._include_in_schema,
            own=own,
        )

    @property
    def database(self) -> Database:
        """The database; of a list of configurations, the first one's."""
        return self.bindings[0].database

    @property
    def databases(self) -> dict[str, Database]:
        """All databases of this plugin by their names."""
        return {binding.database.name: binding.database for binding in self.bindings}

    def on_app_init(self, app_config: AppConfig | None = None) -> AppConfig:
        """Have the application changed, once for all plugins of this kind, after all others.

        Raises:
            ConfigurationError: Two of them have the same name, path or session key; or the class was
                given in the place of a plugin.
        """
        if app_config is None:  # Litestar called it on the class
            raise refuse(
                "plugins", "a class", "not a plugin", "give an instance: [ReviewPointDBPlugin()]"
            )
        ours = [plugin for plugin in app_config.plugins if isinstance(plugin, ReviewPointDBPlugin)]
        if self is ours[0]:
            bindings = [binding for plugin in ours for binding in plugin.bindings]
            freeze_gc = any(plugin._freeze_gc for plugin in ours)  # noqa: SLF001 - of our class
            setup = Setup(bindings, freeze_gc=freeze_gc)
            # `litestar database` looks for exactly this plugin, and takes all configurations of
            # the application from the last one that it finds: so there is one.
            alchemy = SQLAlchemyInitPlugin([binding.alchemy for binding in bindings])
            app_config.plugins.extend([alchemy, SQLAlchemySerializationPlugin(), setup])
            logs.enable()
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Add our commands to `litestar`."""
        from reviewpoint_db.cli import main

        cli.add_command(main)


def _check_names(**keys: object) -> None:
    for setting, key in keys.items():
        if not isinstance(key, str) or not key.isidentifier():
            raise refuse(setting, repr(key), "no parameter has such a name", "give another")


def _check_alembic(given: object) -> None:
    if given is not None and not isinstance(given, AlembicAsyncConfig):
        fix = "give AlembicAsyncConfig(script_location=...) from advanced_alchemy.config"
        kind = type(given).__name__
        raise refuse("alembic_config", f"a {kind}", "not an AlembicAsyncConfig", fix)


def _checked_configs(given: object) -> list[SQLAlchemyAsyncConfig]:
    one = isinstance(given, str) or not isinstance(given, Sequence)
    configs = [given] if one else list(cast("Sequence[object]", given))
    checked = [config for config in configs if isinstance(config, SQLAlchemyAsyncConfig)]
    if not configs or len(checked) < len(configs):
        kinds = ", ".join(f"{type(c).__module__}.{type(c).__name__}" for c in configs) or "nothing"
        msg = (
            f"config is {kinds}: give a reviewpoint_db.DatabaseConfig(url=...), or a SQLAlchemyAsyncConfig "
            "from reviewpoint_db.litestar (or a list of these), whose fields are the same as those "
            "of advanced-alchemy's."
        )
        raise ConfigurationError(msg)
    return checked


def _refuse_what_they_say(**given: bool) -> None:
    """Refuse settings that advanced-alchemy's configuration has a field of its own for."""
    instead = {
        "session_key": "session_dependency_key",
        "read_session_key": "session_dependency_key",
        "commit": "before_send_handler",
    }
    for name in (name for name, is_given in given.items() if is_given):
        msg = (
            f"{name} has no effect beside a SQLAlchemyAsyncConfig: "
            f"set its {instead.get(name, name)} instead."
        )
        raise ConfigurationError(msg)


def _read_key(session_key: str) -> str:
    stem = session_key.removesuffix("session")
    return f"{stem}read_session" if stem != session_key else f"{session_key}_read"
