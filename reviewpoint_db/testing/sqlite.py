"""What looks like a connection of aiosqlite and works in a sandbox."""

from __future__ import annotations

import asyncio
import inspect
import re
import sqlite3
from types import SimpleNamespace
from typing import Any, Final, Self

from reviewpoint_db.testing.channel import Channel

__all__ = ["SQLiteErrors", "SQLiteGround", "SQLiteStandIn"]

#: What aiosqlite says of a connection that is closed.
_NO_CONNECTION: Final = "no active connection"
_BEGIN: Final = re.compile(r"\s*BEGIN\b", re.IGNORECASE)
#: What is set and asked on a new connection; on the sandbox's it is set already.
_SETTING: Final = re.compile(
    r"\s*PRAGMA\s+(journal_mode|synchronous|foreign_keys|busy_timeout|database_list)\b",
    re.IGNORECASE,
)


class SQLiteGround:
    """The sandbox's real connection to a SQLite file."""

    failure = None

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    @property
    def open(self) -> bool:
        """Whether the outer transaction is open."""
        return bool(self.driver.in_transaction)

    @property
    def closed(self) -> bool:
        """Never: a file does not go away."""
        return False

    async def close(self) -> None:
        """Close the file."""
        await self.driver.close()

    async def begin(self) -> None:
        """Open the outer transaction."""
        await self.run("BEGIN IMMEDIATE")

    async def undo(self) -> None:
        """Roll the outer transaction back."""
        await self.run("ROLLBACK")

    async def run(self, statement: str) -> None:
        """Execute a statement without a result."""
        cursor = await self.driver.execute(statement)
        await cursor.close()

    async def check_deferred(self) -> None:
        """Raise what a COMMIT would raise now: the only constraints to defer are foreign keys."""
        cursor = await self.driver.execute("PRAGMA foreign_key_check")
        broken = await cursor.fetchone()
        await cursor.close()
        if broken is not None:
            error = sqlite3.IntegrityError("FOREIGN KEY constraint failed")
            error.sqlite_errorcode = sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
            error.sqlite_errorname = "SQLITE_CONSTRAINT_FOREIGNKEY"
            raise error


class SQLiteErrors:
    """How aiosqlite and SQLite say what has happened."""

    def lost(self, why: str) -> Exception:  # noqa: ARG002 - SQLAlchemy knows it by its text
        """Make the error of a connection that is no more."""
        return ValueError(_NO_CONNECTION)

    def conflict(self) -> Exception:
        """Make the error of a transaction that lost against another one."""
        error = sqlite3.OperationalError("database is locked (db_faults.fail_commit)")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
        error.sqlite_errorname = "SQLITE_BUSY_SNAPSHOT"
        return error


class _Cursor:
    """A cursor whose statements run where the sandbox is."""

    def __init__(self, real: Any, channel: Channel) -> None:
        self._real = real
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if not inspect.iscoroutinefunction(value):
            return value

        async def remote(*args: Any, **kwargs: Any) -> Any:
            return await self._channel.run("SELECT", lambda: value(*args, **kwargs))

        return remote

    async def execute(self, sql: str, *args: Any) -> Self:
        """Execute a statement, or begin a transaction of the sandbox."""
        if _BEGIN.match(sql):
            await self._channel.begin()
        elif not _SETTING.match(sql):
            await self._channel.run(sql, lambda: self._real.execute(sql, *args))
        return self

    async def executemany(self, sql: str, *args: Any) -> Self:
        """Execute a statement for each set of parameters."""
        await self._channel.run(sql, lambda: self._real.executemany(sql, *args))
        return self

    async def close(self) -> None:
        """Let go of the statement."""
        await self._channel.release(self._real.close)


class _Opening:
    """What aiosqlite's methods return: a cursor, to await or to enter."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def __await__(self) -> Any:
        return self._cursor.__await__()

    async def __aenter__(self) -> _Cursor:
        cursor: _Cursor = await self._cursor
        return cursor

    async def __aexit__(self, *_: object) -> None:
        pass


class SQLiteStandIn:
    """What SQLAlchemy takes for a connection of aiosqlite.

    Args:
        real: The sandbox's connection.
        channel: The way to it.
    """

    #: Without which SQLAlchemy sends no COMMIT, and says nothing.
    _connection = True

    def __init__(self, real: Any, channel: Channel) -> None:
        self._real = real
        self._channel = channel
        # Where SQLAlchemy sets isolation_level: on a real one that commits.
        self._conn = SimpleNamespace(isolation_level=None)

    def __getattr__(self, name: str) -> Any:
        if self._channel.closed:
            raise ValueError(_NO_CONNECTION)
        return getattr(self._real, name)

    def cursor(self) -> _Opening:
        """Make a cursor."""

        async def make() -> _Cursor:
            async def real() -> Any:
                return await self._real.cursor()

            return _Cursor(await self._channel.release(real), self._channel)

        return _Opening(make())

    def execute(self, sql: str, *args: Any) -> _Opening:
        """Make a cursor and execute a statement with it."""

        async def make() -> _Cursor:
            cursor: _Cursor = await self.cursor()
            return await cursor.execute(sql, *args)

        return _Opening(make())

    async def create_function(self, name: str, *arguments: Any, **options: Any) -> None:
        """Define a function, once: SQLite refuses it while a statement is active."""
        if self._channel.first(("function", name)):
            await self._channel.release(
                lambda: self._real.create_function(name, *arguments, **options)
            )

    async def commit(self) -> None:
        """Commit the transaction, if there is one."""
        if self._channel.in_transaction:
            await self._channel.commit()
        elif self._channel.closed:
            raise ConnectionResetError("the connection was closed, with its session or its test")

    async def rollback(self) -> None:
        """Roll the transaction back, if there is one."""
        if self._channel.in_transaction:
            await self._channel.rollback()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction of this stand-in is open."""
        return self._channel.in_transaction

    async def close(self) -> None:
        """Undo what is open; the real connection stays."""
        await asyncio.wrap_future(self._channel.drop())

    def stop(self) -> None:
        """Undo what is open, without waiting for it."""
        self._channel.drop()

    async def interrupt(self) -> None:
        """Nothing: it would interrupt whoever has the real connection at present."""
