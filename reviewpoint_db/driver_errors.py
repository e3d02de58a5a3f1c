"""What an exception of a driver is, as SQLAlchemy hands it on.

An exception of asyncpg arrives in two wrappers: SQLAlchemy's own (`exc.orig`) around a stand-in of its
asyncpg dialect, whose cause is asyncpg's. An exception of sqlite3 arrives in one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

__all__ = [
    "code_of",
    "is_adapted",
    "is_of_asyncpg",
    "is_of_busy_connection",
    "is_of_driver",
    "wrapped",
]


def wrapped(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it wraps: `orig` before its cause."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        current = pending.pop()
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            pending += [current.__cause__, getattr(current, "orig", None)]


def code_of(error: BaseException) -> str | None:
    """The SQLSTATE ("23505") or SQLite's name ("SQLITE_BUSY") of an error, or of what it wraps."""
    for current in wrapped(error):
        for attribute in ("sqlstate", "sqlite_errorname"):
            code = getattr(current, attribute, None)
            if isinstance(code, str):
                return code
    return None


def is_adapted(error: BaseException) -> bool:
    """Whether it is SQLAlchemy's stand-in for an exception of asyncpg."""
    return type(error).__module__ == "sqlalchemy.dialects.postgresql.asyncpg"


def is_of_asyncpg(error: BaseException) -> bool:
    """Whether it is an exception of asyncpg; without importing it, since SQLite needs no asyncpg."""
    return any(base.__module__.partition(".")[0] == "asyncpg" for base in type(error).__mro__)


def is_of_busy_connection(error: BaseException) -> bool:
    """Whether a statement was not sent, since another one of asyncpg's own is under way."""
    return any(
        is_of_asyncpg(each)
        and type(each).__name__ == "InterfaceError"
        and "operation is in progress" in str(each)  # it has no class of its own
        for each in wrapped(error)
    )


def is_of_driver(error: BaseException) -> bool:
    """Whether it is an exception of a driver or SQLAlchemy's stand-in for one."""
    return isinstance(error, sqlite3.Error) or is_adapted(error) or is_of_asyncpg(error)
