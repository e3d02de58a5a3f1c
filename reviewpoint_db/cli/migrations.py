"""advanced-alchemy's migration commands."""

from __future__ import annotations

from typing import Final

import click

__all__ = ("alembic_error", "migration_commands")


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

            add_migration_commands(self)


def alembic_error() -> type[Exception]:
    """The error whose text alembic shows to users; imported when one is asked for."""
    from alembic.util import CommandError

    return CommandError


migration_commands: Final = _MigrationCommands(
    name="database", help="Migrate the database (the commands of `litestar database`)."
)
