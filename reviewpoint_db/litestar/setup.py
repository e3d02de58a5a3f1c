"""What the plugins of one application change in it, all at once and after all other plugins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from advanced_alchemy.exceptions import RepositoryError
from advanced_alchemy.extensions.litestar.exception_handler import exception_to_http_response
from litestar.middleware import DefineMiddleware
from litestar.plugins import CLIPlugin, InitPlugin
from sqlalchemy.exc import SQLAlchemyError

from reviewpoint_db.asgi import UnitOfWorkMiddleware
from reviewpoint_db.database import Database
from reviewpoint_db.litestar.alchemy import leave_to_unit_of_work
from reviewpoint_db.litestar.binding import Binding, refuse_equals
from reviewpoint_db.litestar.errors import (
    answer_commit_error,
    database_error_handler,
    repository_error_handler,
)
from reviewpoint_db.litestar.injection import (
    inject_databases,
    provide_read_session,
    provide_session,
)
from reviewpoint_db.litestar.lifecycle import Lifecycle
from reviewpoint_db.litestar.middleware import (
    CommitMiddleware,
    note_socket_failure,
    origin,
)
from reviewpoint_db.litestar.routes import make_routes

if TYPE_CHECKING:
    from click import Group
    from litestar.config.app import AppConfig

__all__ = ("Setup",)


class Setup(InitPlugin, CLIPlugin):
    """Wires databases into an application that is being made.

    It stands behind all other plugins in the list, so that the unit of work is around whatever
    they add, the COMMIT inside of it, and the databases stop after their hooks.

    Args:
        bindings: Those of all our plugins.
        freeze_gc: Whether one of them asks for it.

    Raises:
        ConfigurationError: Two of them have something in common that they must not.
    """

    def __init__(self, bindings: Sequence[Binding], *, freeze_gc: bool) -> None:
        refuse_equals(bindings)
        self._bindings = bindings
        self._freeze_gc = freeze_gc

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Change the application."""
        databases = {binding.database.name: binding.database for binding in self._bindings}
        first = self._bindings[0].database
        app_config.state.databases = databases
        for binding in self._bindings:
            self._add_sessions(app_config, binding)
        for binding in self._bindings:
            self._add_routes(app_config, binding)
        inject_databases(app_config, first.name)
        app_config.signature_namespace.setdefault("Database", Database)
        # An error does not say whose it is.
        longest = max(database.config.retry_after for database in databases.values())
        self._add_error_handlers(app_config, longest)
        lifecycle = Lifecycle(self._bindings)
        app_config.lifespan.insert(0, lifecycle.lifespan)
        app_config.on_shutdown.append(lifecycle.stop)
        app_config.on_startup.append(lifecycle.check)
        app_config.after_exception.append(note_socket_failure)
        if self._freeze_gc:
            app_config.on_startup.append(lifecycle.freeze)
        return app_config

    def on_cli_init(self, cli: Group) -> None:
        """Have `litestar database`, which advanced-alchemy's plugin has added, tell its errors."""
        from reviewpoint_db.cli.migrations import tell_errors

        # Not by add_command(), which has wrapped the callback of the group already.
        cli.commands["database"] = tell_errors(cast("Group", cli.commands["database"]))

    def _add_sessions(self, app_config: AppConfig, binding: Binding) -> None:
        database, alchemy, rule = binding.database, binding.alchemy, binding.rule
        outer = DefineMiddleware(
            cast("Any", UnitOfWorkMiddleware),
            database=database,
            commit=rule.mode,
            origin=origin,
            open_session=None if binding.own else alchemy.new_session,
        )
        app_config.middleware.insert(0, outer)
        if rule.mode == "autocommit":
            inner = DefineMiddleware(
                CommitMiddleware,
                database=database,
                answer=answer_commit_error,
                commits=rule.commits,
            )
            app_config.middleware.append(inner)
        session = provide_session(database.name) if rule.hook is None else None
        app_config.dependencies |= {
            binding.read_session_key: provide_read_session(database.name),
            **({alchemy.session_dependency_key: session} if session else {}),
        }
        if leave_to_unit_of_work in app_config.before_send:
            app_config.before_send.remove(leave_to_unit_of_work)

    def _add_routes(self, app_config: AppConfig, binding: Binding) -> None:
        if binding.path is not None:
            app_config.route_handlers += make_routes(
                binding.database,
                binding.path,
                binding.access,
                guards=binding.guards,
                middleware=app_config.middleware,
                include_in_schema=binding.include_in_schema,
            )

    def _add_error_handlers(self, app_config: AppConfig, retry_after: float) -> None:
        # A copy: the application may have given the same dictionary to another one.
        handlers = dict(app_config.exception_handlers)
        handlers.setdefault(SQLAlchemyError, database_error_handler(retry_after))
        ours = repository_error_handler(retry_after)
        # advanced-alchemy's plugin has decided before, by the application's other handlers and by
        # `set_default_exception_handler`, whether there is to be one.
        if handlers.get(RepositoryError) is exception_to_http_response:
            handlers[RepositoryError] = ours
        if any(binding.own for binding in self._bindings):
            handlers.setdefault(RepositoryError, ours)
        app_config.exception_handlers = handlers
