"""What a test can assert of its database, and of how it was used."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from loguru import logger
from sqlalchemy import event
from sqlalchemy.engine import Engine

from reviewpoint_db import default
from reviewpoint_db.database import Database

__all__ = [
    "StatementLog",
    "assert_no_leak",
    "assert_statements",
    "log_test_database_state",
    "verify_test_database",
]

#: Seconds that a connection may take to come back after its request: a release is a task.
_RETURN: Final = 2.0
_STEP: Final = 0.005


class StatementLog(list[str]):
    """The statements that were executed, in their order."""

    def __str__(self) -> str:
        """One numbered statement a line."""
        return "\n".join(f"  {n}. {' '.join(text.split())}" for n, text in enumerate(self, 1))


@contextlib.contextmanager
def assert_statements(
    exactly: int | None = None,
    *,
    max: int | None = None,  # noqa: A002 - reads as it is meant
) -> Iterator[StatementLog]:
    """Assert how many statements a block executes, by all engines of the process.

    BEGIN, COMMIT, savepoints and what a new connection asks for do not count.

    Args:
        exactly: How many there must be.
        max: How many there may be at most.

    Raises:
        AssertionError: It were others; the message has the statements.

    Example:
        >>> with assert_statements(max=3):
        ...     await client.get("/papers")
    """
    seen = StatementLog()

    def note(
        _connection: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool
    ) -> None:
        if _context is not None and not statement.lstrip().upper().startswith(_CONTROL):
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    if exactly is not None and len(seen) != exactly:
        raise AssertionError(f"{len(seen)} statements instead of {exactly}:\n{seen}")
    if max is not None and len(seen) > max:
        raise AssertionError(f"{len(seen)} statements, {max} are allowed:\n{seen}")


_CONTROL: Final = ("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT")


@contextlib.contextmanager
def assert_no_leak(*databases: Database) -> Iterator[None]:
    """Assert that a block returns every connection that it takes.

    Args:
        databases: Whose connections are counted.

    Raises:
        AssertionError: One is still out; the message says who has it.

    Example:
        >>> with assert_no_leak(plugin.database):
        ...     client.get("/papers")
    """
    before = {id(database): held_by(database) for database in databases}
    yield
    refuse_leaks((database, before[id(database)]) for database in databases)


def refuse_leaks(databases: Iterable[tuple[Database, int]]) -> None:
    """Raise when a database has more connections out than are allowed, even after a moment."""
    deadline = time.monotonic() + _RETURN
    for database, allowed in databases:
        # Another loop's thread may be about to return it.
        while held_by(database) > allowed and _others_run(database) and time.monotonic() < deadline:
            time.sleep(_STEP)
        if held_by(database) > allowed:
            holders = "; ".join(str(holder) for holder in database.activity.holders())
            raise AssertionError(
                f"{held_by(database)} connection(s) of database {database.name!r} did not come back. "
                f"Held by: {holders}."
            )


def held_by(database: Database) -> int:
    """Return how many connections of a database are out."""
    return len(database.activity.holders())


def _others_run(database: Database) -> bool:
    return database.started


async def verify_test_database() -> None:
    """Assert that the test's database answers.

    Raises:
        AssertionError: It does not.
    """
    assert await default.db_healthcheck(), "Test database is not healthy"


def log_test_database_state() -> None:
    """Write the state of the test's database into the log."""
    logger.info("Test DB state: {}", default.get_connection_debug_info())
