"""What the commands work on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reviewpoint_db import logs
from reviewpoint_db.cli.application import databases_of, load_application
from reviewpoint_db.database import Database
from reviewpoint_db.migrations import Migrations

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Target",)


class Target(dict[str, Any]):
    """What the commands work on, found when it is asked for.

    It is a dictionary because advanced-alchemy's commands read `ctx.obj["configs"]`.

    Args:
        app_path: `module:app`, where it was given.
        find_app: Returns the application that a framework's own command line has loaded.
        migrations: The folder of the migration scripts, for a database without an application.
    """

    def __init__(
        self,
        app_path: str | None = None,
        find_app: Callable[[], Any] | None = None,
        migrations: str = "migrations",
    ) -> None:
        super().__init__()
        self._app_path = app_path
        self._find_app = find_app
        self._migrations = migrations
        self._app: Any = None

    def __missing__(self, key: str) -> Any:
        value: Any
        if key == "configs":
            value = self._alchemy_of_app() or [self._alchemy_of(db) for db in self.databases]
        elif key == "databases":
            value = databases_of(self.app) if self.app is not None else [Database()]
        else:
            raise KeyError(key)
        self[key] = value
        return value

    @property
    def app(self) -> Any:
        """The application, a `Database` or a `DatabaseConfig`; None where none was named."""
        if self._app is None:
            if self._app_path is not None:
                self._app = load_application(self._app_path)
            elif self._find_app is not None:
                self._app = self._find_app()
            # The application has let them through; a command says what it found.
            logs.disable()
        return self._app

    @property
    def databases(self) -> list[Database]:
        """The databases of the application, or the environment's one.

        Raises:
            ConfigurationError: The configuration is wrong, or the application has no database.
        """
        databases: list[Database] = self["databases"]
        return databases

    def migrations_of(self, database: Database) -> Migrations:
        """Return where the migrations of a database are."""
        configs = self["configs"]
        named = [config for config in configs if (config.bind_key or "default") == database.name]
        return Migrations.of((named or configs)[0])

    def _alchemy_of_app(self) -> list[Any]:
        """The configs of advanced-alchemy's plugin, where the application is Litestar's."""
        plugins = getattr(self.app, "plugins", None)
        if plugins is None:
            return []
        from advanced_alchemy.extensions.litestar import SQLAlchemyInitPlugin

        found = [plugin for plugin in plugins if isinstance(plugin, SQLAlchemyInitPlugin)]
        return [config for plugin in found[-1:] for config in plugin.config]

    def _alchemy_of(self, database: Database) -> Any:
        from advanced_alchemy.config import AlembicAsyncConfig, SQLAlchemyAsyncConfig

        return SQLAlchemyAsyncConfig(
            engine_instance=database.engine,
            bind_key=None if database.name == "default" else database.name,
            metadata=database.metadata,
            alembic_config=AlembicAsyncConfig(script_location=self._migrations),
        )
