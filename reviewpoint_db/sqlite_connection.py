"""The sqlite3 connection of the pool: it ends a statement in time, and itself when it is interrupted."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

__all__ = ["SQLiteConnection", "StatementExpired"]

#: Steps of SQLite's virtual machine between two looks at the clock. In memory it makes them in some
#: milliseconds. A look needs the interpreter's lock, and waits for it where the event loop is busy.
_STEPS: Final = 100_000


class StatementExpired(sqlite3.OperationalError):
    """A statement was interrupted at its time limit."""

    sqlite_errorcode = sqlite3.SQLITE_INTERRUPT
    sqlite_errorname = "SQLITE_INTERRUPT"


class SQLiteConnection(sqlite3.Connection):
    """A connection whose statements have a time limit, and that rolls back although interrupted.

    The limit is noticed within 100 000 steps of SQLite's virtual machine: milliseconds in memory, more
    where each page comes from a slow disk, and not inside of one step, such as a large sort. The
    wait for another connection's lock has its own limit, `timeout`.

    An interrupt from outside is the end of it: what is open is rolled back, so that the next
    statement would be stored by itself, and a COMMIT would say that all is well.

    SQLite forgets an interrupt once none of the connection's statements is under way any more. A
    cursor that was not read to its end is under way, and one that a cancelled task's traceback
    keeps alive stays so: until its end each ROLLBACK would be interrupted too.

    Args:
        *args: As sqlite3 gives them.
        query_timeout: Seconds for a statement with all of its rows; of those that are read in
            parts, for each part.
        **kwargs: As sqlite3 gives them.
    """

    def __init__(self, *args: Any, query_timeout: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cursors: WeakSet[sqlite3.Cursor] = WeakSet()
        self.query_timeout = query_timeout
        self.deadline = _Deadline()
        self._cut = False
        self.set_progress_handler(self.deadline.passed, _STEPS)

    def interrupt(self) -> None:
        """Abort what runs, and refuse all that follows but the rollback."""
        self._cut = True
        super().interrupt()

    def refuse_if_cut(self) -> None:
        """Raise after an interrupt, as a lost connection to a server would."""
        if self._cut:
            raise ConnectionResetError("the connection was cut")

    def commit(self) -> None:
        """Commit, unless it was interrupted."""
        self.refuse_if_cut()
        super().commit()

    def cursor(self, factory: Any = None) -> Any:
        """Like `sqlite3.Connection.cursor`, and remember it."""
        cursor = super().cursor(factory or _Cursor)
        self._cursors.add(cursor)
        return cursor

    def rollback(self) -> None:
        """Roll back; when that is interrupted, once more without the cursors that are open."""
        try:
            super().rollback()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            for cursor in self._cursors:
                cursor.close()
            super().rollback()


class _Deadline:
    """When what a connection executes is to end, in monotonic seconds; apart, to make no cycle."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = float("inf")

    def passed(self) -> bool:
        return time.monotonic() >= self.at


class _Cursor(sqlite3.Cursor):
    """A cursor that gives each statement the connection's `query_timeout`."""

    connection: SQLiteConnection
    #: Seconds of the statement that are left; those between its parts do not count.
    _left = float("inf")

    def execute(self, *args: Any) -> Any:
        self.connection.refuse_if_cut()
        self._left = self.connection.query_timeout
        return self._in_time(super().execute, *args)

    def executemany(self, *args: Any) -> Any:
        self.connection.refuse_if_cut()
        self._left = self.connection.query_timeout
        return self._in_time(super().executemany, *args)

    def fetchone(self) -> Any:
        self._left = self.connection.query_timeout
        return self._in_time(super().fetchone)

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        self._left = self.connection.query_timeout
        return self._in_time(super().fetchmany, *args, **kwargs)

    def fetchall(self) -> Any:
        """Fetch the rows, in what `execute` has left of the time."""
        return self._in_time(super().fetchall)

    def _in_time(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        deadline = self.connection.deadline
        started = time.monotonic()
        deadline.at = started + self._left
        try:
            return call(*args, **kwargs)
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code == sqlite3.SQLITE_INTERRUPT and deadline.passed():
                raise StatementExpired("interrupted at the time limit") from error
            raise
        finally:
            self._left -= time.monotonic() - started
            deadline.at = float("inf")
