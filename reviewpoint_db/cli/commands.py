"""`reviewpoint-db`: the group, and the commands of our own."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from reviewpoint_db.budget import Budget
from reviewpoint_db.checks import refused, run_checks
from reviewpoint_db.cli.migrations import migration_commands
from reviewpoint_db.cli.target import Target
from reviewpoint_db.errors import ConfigurationError

if TYPE_CHECKING:
    from reviewpoint_db.database import Database
    from reviewpoint_db.health import HealthReport
    from reviewpoint_db.migrations import Migrations

__all__ = ("main",)

#: Seconds between two looks of `health --wait`.
_PAUSE: Final = 0.5


class _Commands(click.Group):
    """Our commands, and behind them those of `database`, without the word before them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *migration_commands.list_commands(ctx)})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return super().get_command(ctx, name) or migration_commands.get_command(ctx, name)


@click.group(name="reviewpoint-db", cls=_Commands)
@click.option(
    "--app",
    "app_path",
    envvar="REVIEWPOINT_DB_APP",
    help="The application as module:attribute; without it the environment says which database.",
)
@click.option(
    "--migrations",
    default="migrations",
    show_default=True,
    help="The folder of the migration scripts; a Litestar application knows its own.",
)
def main(app_path: str | None, migrations: str) -> None:
    """Check a database, wait for it, and migrate it."""
    # Not by a parameter: Litestar's group passes a `ctx` of its own to callbacks that have one.
    ctx = click.get_current_context()
    outer = ctx.obj

    def loaded() -> Any:
        environment = outer() if callable(outer) else outer
        return environment.app

    # Under `litestar` there is an object already, which knows the application or finds it.
    ctx.obj = Target(app_path, loaded if outer is not None else None, migrations)


@main.command()
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Processes that share the server; the configuration's expected_processes without it.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    help="Compare the pools with this limit, on paper: no server is asked.",
)
@click.option("--strict", is_flag=True, help="Fail on warnings too, not only on errors.")
@click.pass_obj
def check(
    target: Target, processes: int | None, max_connections: int | None, *, strict: bool
) -> None:
    """Look for mistakes in the set-up; each has an id and a fix. Exit status 1 on errors."""
    try:
        databases = target.databases
        findings = [
            finding
            for database in databases
            for finding in asyncio.run(
                _checked(database, target.migrations_of(database), processes, max_connections)
            )
        ]
        if max_connections is not None:
            _show_budgets(databases, processes, max_connections)
    except ConfigurationError as error:
        findings = [refused(error)]
    for finding in findings:
        click.echo(str(finding))
    failing = {"error", "warning"} if strict else {"error"}
    if any(finding.level in failing for finding in findings):
        sys.exit(1)
    click.echo("The checks passed.")


def _show_budgets(databases: list[Database], processes: int | None, limit: int) -> None:
    """Show the numbers of what fits; what does not is a finding."""
    counted = [one for one in databases if one.config.backend == "postgresql"]
    if not counted:
        raise click.UsageError(
            "--max-connections compares the pools of PostgreSQL databases, and here is none. Set "
            "REVIEWPOINT_DB_URL, or --app; the server need not run."
        )
    for database in counted:
        count = processes or database.config.expected_processes
        budget = Budget.of(database.config, count, limit)
        if budget.fits:
            click.echo(f"{database.name}: {budget}")


async def _checked(
    database: Database, migrations: Migrations, processes: int | None, limit: int | None
) -> list[Any]:
    try:
        return await run_checks(
            database,
            migrations=migrations,
            processes=processes,
            max_connections=limit,
            connect=limit is None,  # else on paper
        )
    finally:
        await database.stop()


@main.command()
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Ask again until every database can be reached, for at most so long.",
)
@click.pass_obj
def health(target: Target, wait: float) -> None:
    """Say whether the databases can be reached: exit status 0, else 1 (2: wrong configuration).

    A failing check of the application's own is told, and is no reason for another exit status.
    """
    try:
        databases = target.databases
    except ConfigurationError as error:
        click.echo(str(refused(error)), err=True)
        sys.exit(2)
    deadline = time.monotonic() + wait
    reports = {database.name: asyncio.run(_report(database, deadline)) for database in databases}
    for name, report in reports.items():
        click.echo(f"{name}: {_described(report)}")
    if any(report.cause == "unreachable" for report in reports.values()):
        sys.exit(1)


def _described(report: HealthReport) -> str:
    """The status, with its cause and with what each check says that is not healthy."""
    wrong = [
        f"{check.name}: {check.detail}" for check in report.checks if check.status != "healthy"
    ]
    return f"{report.status} ({report.cause}; {'; '.join(wrong)})" if wrong else report.status


async def _report(database: Database, deadline: float) -> HealthReport:
    told = False
    try:
        while True:
            report = await database.health()
            left = deadline - time.monotonic()
            if report.cause != "unreachable" or left <= 0:
                return report
            if not told:  # at once: whoever waits for this may give up before it ends
                told = True
                again = f"asking again for up to {left:.0f} s"
                click.echo(f"{database.name}: {_described(report)}, {again}", err=True)
            await asyncio.sleep(min(_PAUSE, left))
    finally:
        await database.stop()


main.add_command(migration_commands)
