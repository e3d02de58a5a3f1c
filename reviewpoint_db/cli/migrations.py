"""advanced-alchemy's migration commands, with errors that are told in one line."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import wraps
from typing import Any, Final

import click

from reviewpoint_db import logs
from reviewpoint_db.errors import DatabaseUnavailableError, ReviewPointDBError
from reviewpoint_db.redaction import safe_error, safe_url
from reviewpoint_db.sqlstate import connect_hint, is_unreachable

__all__ = ("migration_commands", "tell_errors")


class _MigrationCommands(click.Group):
    """advanced-alchemy's commands; it, and alembic with it, are imported when one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._fill()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        self._fill()
        return super().get_command(ctx, name)

    def _fill(self) -> None:
        if not self.commands:
            from advanced_alchemy.cli import add_migration_commands

            made = click.Group()
            add_migration_commands(made)
            self.commands.update(tell_errors(made).commands)


def tell_errors(group: click.Group) -> click.Group:
    """Return a copy of advanced-alchemy's group that tells in one line what is not a bug.

    Args:
        group: Its commands find their configurations in `ctx.obj["configs"]`.
    """
    copied = copy(group)
    copied.commands = {name: _telling(command) for name, command in group.commands.items()}
    return copied


def _telling(command: click.Command) -> click.Command:
    callback: Callable[..., Any] | None = command.callback
    assert callback is not None

    @wraps(callback)
    def run(*args: Any, **options: Any) -> Any:
        logs.disable()  # what a command has to say, it prints
        try:
            return callback(*args, **options)
        except Exception as error:
            line = _line(error)
            if line is None:  # the script's own, whose traceback names the place
                raise
            raise click.ClickException(line) from error

    copied = copy(command)
    copied.callback = run
    return copied


def _line(error: Exception) -> str | None:
    from alembic.util import CommandError

    if is_unreachable(error):
        # The pool's error speaks of what an application does next; its cause says why.
        cause = error.__cause__ if isinstance(error, DatabaseUnavailableError) else None
        why = safe_error(cause or error)
        return f"{_url()} cannot be reached: {why}. Fix: {connect_hint(error)}."
    return str(error) if isinstance(error, (CommandError, ReviewPointDBError)) else None


def _url() -> str:
    """The URL of the database that the running command was about."""
    ctx = click.get_current_context()
    bind_key = ctx.params.get("bind_key")
    configs = [one for one in ctx.obj["configs"] if bind_key in {None, one.bind_key}]
    database = getattr(configs[0], "database", None)
    if database is None:
        return safe_url(configs[0].get_engine().url)
    shown: str = database.config.safe_url
    return shown


migration_commands: Final = _MigrationCommands(
    name="database", help="Migrate the database (the commands of `litestar database`)."
)
