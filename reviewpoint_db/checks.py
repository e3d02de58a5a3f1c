"""System checks: what is wrong with a set-up, each with an id that can be looked up, and the fix.

| id      | looks at                                                                    |
|---------|-----------------------------------------------------------------------------|
| RPDB001 | the configuration: it is refused, or there is no URL                        |
| RPDB002 | the driver: it cannot be imported                                           |
| RPDB003 | the environment: it is not set, and the database is not on this machine     |
| RPDB004 | the connection: the database cannot be reached                              |
| RPDB005 | the pools of all processes against the server's `max_connections`           |
| RPDB006 | migrations that were not applied                                            |
| RPDB007 | debug routes that are open although the database is not on this machine     |
| RPDB000 | a check of the application's own that raised                                |

`reviewpoint-db check` prints them, and a start logs them.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from loguru import logger
from msgspec.structs import replace
from sqlalchemy import text

from reviewpoint_db.budget import Budget
from reviewpoint_db.context import SYSTEM_CHECKS
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.migrations import Migrations
from reviewpoint_db.pgbouncer import answers
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.server_view import application_prefix
from reviewpoint_db.sqlstate import connect_hint

if TYPE_CHECKING:
    from reviewpoint_db.database import Database

__all__ = (
    "Finding",
    "Level",
    "SystemCheck",
    "check_at_start",
    "refused",
    "run_checks",
)

Level = Literal["info", "warning", "error"]
_DRIVERS: Final = {"postgresql": "asyncpg", "sqlite": "aiosqlite"}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a check found.

    Example:
        >>> print(Finding(id="SHOP001", level="error", message="No stock.", fix="Order some."))
        SHOP001 error: No stock. Fix: Order some.

    Args:
        id: Stable, for searching and silencing: RPDB and three digits, or the application's own.
        level: "error" fails `reviewpoint-db check`.
        message: What is wrong, without secrets.
        fix: What to do.
    """

    id: str
    level: Level
    message: str
    fix: str

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{self.id} {self.level}: {self.message} Fix: {self.fix}"


SystemCheck = Callable[["Database"], Awaitable[Iterable[Finding]]]
"""A check of the application's own: an async function from the database to its findings."""


async def run_checks(
    database: Database,
    *,
    migrations: Migrations | None = None,
    processes: int | None = None,
    max_connections: int | None = None,
    guarded: bool = False,
    connect: bool = True,
) -> list[Finding]:
    """Run all checks; those that need the database are left out when it cannot be reached.

    What an application adds by `database.add_system_check(check)` runs last; one that raises
    becomes a finding.

    Args:
        database: What to check.
        migrations: None leaves pending migrations unchecked.
        processes: Processes that share the server; None takes the config's `expected_processes`.
        max_connections: Compare the pools with this, not with what the server says: on paper, also
            where it cannot be reached.
        guarded: Whether the debug routes ask for a token or have guards.
        connect: Whether to ask the database; without it RPDB004, 005 and 006 are left out.

    Returns:
        The findings in the order of their checks; none when all is well.
    """
    findings = [*_url(database), *_driver(database), *_environment(database)]
    count = processes or database.config.expected_processes
    if max_connections is not None and database.config.backend == "postgresql":
        findings += _over(Budget.of(database.config, count, max_connections))
    if connect:
        asked = count if max_connections is None else None
        findings += await _asked(database, migrations, asked)
    findings += _exposure(database, guarded=guarded)
    for check in database.system_checks:
        findings += await _run_own(database, check)
    return findings


async def check_at_start(
    database: Database, *, migrations: Migrations | None = None, guarded: bool = False
) -> None:
    """Run the checks when an application starts, and log what they find; never raises.

    Tests start applications by the hundred, so in the environment "test" nothing connects.

    Args:
        database: What to check.
        migrations: As in `run_checks`.
        guarded: As in `run_checks`.
    """
    connect = database.config.effective_environment != "test"
    findings = await run_checks(database, migrations=migrations, guarded=guarded, connect=connect)
    for finding in findings:
        logger.log(finding.level.upper(), "{}", finding)


async def _asked(
    database: Database, migrations: Migrations | None, processes: int | None
) -> list[Finding]:
    """Run the checks that need the database; no processes: its pools were compared already."""
    report = await database.health()
    if report.cause == "unreachable":
        connection = report.checks[0]
        return [
            Finding(
                id="RPDB004",
                level="error",
                message=f"{database.config.safe_url} cannot be reached: {connection.detail}.",
                fix=f"{connection.hint or connect_hint(TimeoutError())}.",
            )
        ]
    findings = []
    # CockroachDB has no such limit; PgBouncer's own pools are what must fit, and the server does not
    # know how many clients it takes.
    config = database.config
    counted = config.backend == "postgresql" and not config.is_cockroachdb
    if processes is not None and counted and not answers(database.engine):
        findings += await _bounded("RPDB005", database, _pools(database, processes))
    if migrations is not None and migrations.present():
        findings += await _bounded("RPDB006", database, _migrations(database, migrations))
    return findings


async def _bounded(name: str, database: Database, check: Awaitable[list[Finding]]) -> list[Finding]:
    """Give a check `health_timeout` seconds; what stops it is a finding too."""
    try:
        async with asyncio.timeout(database.config.health_timeout):
            return await check
    except Exception as error:  # noqa: BLE001  migration scripts are code, and raise what they like
        return [
            Finding(
                id=name,
                level="warning",
                message=f"This could not be checked: {safe_error(error)}.",
                fix="repair what the error names, and check again.",
            )
        ]


def refused(error: ConfigurationError) -> Finding:
    """Turn a refused configuration into its finding; the error's text has the fix already."""
    message, _, fix = str(error).partition(" Fix: ")
    return Finding(id="RPDB001", level="error", message=message, fix=fix or "see the message.")


def _url(database: Database) -> list[Finding]:
    if database.config.url is not None:
        return []
    return [
        Finding(
            id="RPDB001",
            level="info",
            message=f"No URL is set: the data is in {database.config.safe_url}.",
            fix="set REVIEWPOINT_DB_URL=postgresql://user:password@host/database.",
        )
    ]


def _driver(database: Database) -> list[Finding]:
    driver = _DRIVERS[database.config.backend]
    try:
        importlib.import_module(driver)
    except ImportError as error:
        return [
            Finding(
                id="RPDB002",
                level="error",
                message=f"The driver {driver} cannot be imported ({type(error).__name__}).",
                fix=f"pip install --force-reinstall {driver}",
            )
        ]
    return []


def _environment(database: Database) -> list[Finding]:
    config = database.config
    if config.environment is not None or config.effective_environment != "prod":
        return []
    return [
        Finding(
            id="RPDB003",
            level="warning",
            message=f"Taken as prod: {str(config.debug_closed_reason).partition(';')[0]}.",
            fix="set REVIEWPOINT_ENVIRONMENT to dev, test or prod.",
        )
    ]


async def _pools(database: Database, processes: int) -> list[Finding]:
    query = text(
        "select name, setting::int from pg_settings where name in"
        " ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"
    )
    # Nobody knows how far the others' pools will grow: what they have now is the least.
    counting = text(
        "select count(*) from pg_stat_activity where backend_type = 'client backend'"
        " and not (starts_with(application_name, :own) and datname = current_database())"
    )
    own = {"own": application_prefix(database.config)}
    async with database.read_session(origin=SYSTEM_CHECKS) as session:
        settings = {name: int(value) for name, value in await session.execute(query)}
        others = int((await session.execute(counting, own)).scalar_one())
    limit = settings.pop("max_connections")
    reserved = sum(settings.values())
    return _over(Budget.of(database.config, processes, limit, reserved=reserved, others=others))


def _over(budget: Budget) -> list[Finding]:
    if budget.fits:
        return []
    return [Finding(id="RPDB005", level="warning", message=str(budget), fix=budget.fix)]


async def _migrations(database: Database, migrations: Migrations) -> list[Finding]:
    current, heads = await migrations.state_of(database.engine)
    if current == heads:
        return []
    return [
        Finding(
            id="RPDB006",
            level="warning",
            message=(
                f"Migrations are pending: the database is at {_named(current)}, the scripts in "
                f"{migrations.script_location} are at {_named(heads)}."
            ),
            fix="reviewpoint-db upgrade, or litestar database upgrade.",
        )
    ]


def _named(revisions: set[str]) -> str:
    return ", ".join(sorted(revisions)) or "nothing"


def _exposure(database: Database, *, guarded: bool) -> list[Finding]:
    config = database.config
    if guarded or not config.debug_allowed or config.backend != "postgresql":
        return []
    # Taken for prod if nobody says otherwise: the database is on another machine.
    if replace(config, environment=None).effective_environment != "prod":
        return []
    return [
        Finding(
            id="RPDB007",
            level="warning",
            message=(
                f"The debug routes are open to everybody: the environment is "
                f"{config.effective_environment}, but the database is not on this machine."
            ),
            fix="set REVIEWPOINT_ENVIRONMENT=prod, or REVIEWPOINT_DB_DEBUG_TOKEN.",
        )
    ]


async def _run_own(database: Database, check: SystemCheck) -> list[Finding]:
    try:
        return list(await check(database))
    except Exception as error:  # noqa: BLE001  foreign code; a check that fails is a finding
        name = getattr(check, "__name__", type(check).__name__)
        return [
            Finding(
                id="RPDB000",
                level="error",
                message=f"The check {name} failed: {safe_error(error)}.",
                fix="repair the check.",
            )
        ]
