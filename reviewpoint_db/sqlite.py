"""What SQLite by aiosqlite needs to be a database to trust.

WAL, foreign keys, a busy timeout, and transactions that begin IMMEDIATE: a transaction that starts
as a reader and then writes cannot wait for the writer before it, it fails at once with
"database is locked", whatever the busy timeout is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final
from weakref import finalize

from loguru import logger
from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from reviewpoint_db.backend import READ_ONLY

__all__ = ["MemoryDatabase", "SQLite"]

#: What tells a file from another one of its name: device and inode. None when it is not there.
_File = tuple[int, int] | None
#: Where a driver's connection has the path and the `_File` that it opened.
_OPENED: Final = "_reviewpoint_db_opened"
#: Seconds between two interrupts of a connection that is about to be closed.
_INTERRUPT_AGAIN: Final = 0.02
#: Seconds for which it is interrupted.
_INTERRUPT_FOR: Final = 10.0
#: Seconds for a thread that has nothing left to do but to end.
_ENDING: Final = 1.0


class SQLite:
    """The `Backend` for aiosqlite connections."""

    needs_ping = False
    password_rotates = False

    def is_closed(self, driver: Any) -> bool:
        """Whether the connection was closed."""
        try:
            driver.isolation_level  # noqa: B018 - any attribute of the connection would do
        except (ValueError, sqlite3.ProgrammingError):
            return True
        return False

    def lost_file(self, driver: Any) -> str | None:
        """The file, when what the connection has open is not what is there: one `stat` tells."""
        opened: tuple[str, _File] | None = vars(driver).get(_OPENED)
        if opened is None:
            return None
        path, file = opened
        return None if _file_at(path) == file else path

    def in_transaction(self, driver: Any) -> bool:
        """Whether a transaction, and with it perhaps the write lock, is still open."""
        try:
            return bool(driver.in_transaction)
        except (ValueError, sqlite3.ProgrammingError):  # closed
            return False

    def is_rolled_back(self, driver: Any) -> bool:
        """Whether SQLite did so by itself: a full disk, `ON CONFLICT ROLLBACK`, a trigger."""
        return not self.in_transaction(driver)

    def check_commit(self, connection: Any) -> None:
        """Nothing: what was rolled back is known at once."""

    def pid(self, driver: Any) -> int | None:  # noqa: ARG002 - there is no server
        """None."""
        return None

    def refuses_writes(self, driver: Any) -> bool:  # noqa: ARG002 - there is no other server
        """No: a file that cannot be written stays so on another connection."""
        return False

    async def ping(self, driver: Any, timeout: float) -> None:
        """Read the file's header, which tells that the file is there and a database."""
        async with asyncio.timeout(timeout), driver.execute("PRAGMA schema_version") as cursor:
            await cursor.fetchone()

    async def close(self, driver: Any, timeout: float) -> None:  # noqa: ARG002 - ends by itself
        """Close the file and end the connection's thread."""
        with contextlib.suppress(Exception):
            await driver.close()

    def terminate(self, driver: Any) -> None:
        """Abort what runs. The close that follows always ends, and ends the thread with it."""
        self.interrupt(driver)

    def interrupt(self, driver: Any) -> None:
        """Abort what a cancelled task left running in the connection's thread, and roll back."""
        self._interrupt_until_closed(driver, time.monotonic() + _INTERRUPT_FOR)
        with contextlib.suppress(RuntimeError):  # no loop runs
            asyncio.get_running_loop()
            # A close would keep the transaction, and with it the write lock, for as long as a
            # cursor lives: in the cancelled task's traceback. https://sqlite.org/c3ref/close.html
            _begin(driver.rollback())

    def _interrupt_until_closed(self, driver: Any, deadline: float) -> None:
        """Interrupt again and again, since SQLite forgets an interrupt for which nothing runs yet.

        Not beyond `deadline` (monotonic seconds): a function of the application's, say, hears nothing of it.
        """
        _begin(driver.interrupt())
        if self.is_closed(driver):
            return
        if time.monotonic() >= deadline:
            logger.warning(
                "A SQLite connection is still open {:g} s after its interrupt; it closes when its "
                "statement ends",
                _INTERRUPT_FOR,
            )
            return
        with contextlib.suppress(RuntimeError):  # no loop runs
            loop = asyncio.get_running_loop()
            loop.call_later(_INTERRUPT_AGAIN, self._interrupt_until_closed, driver, deadline)

    def abandon(self, driver: Any) -> None:
        """End the connection's thread."""
        # aiosqlite before 0.22 has no public way.
        stop = getattr(driver, "stop", None) or driver._stop_running  # noqa: SLF001
        # In a thread without a loop: with one, it makes a future there, and the connection's thread
        # would have to report to a loop that may end before it.
        outside = threading.Thread(target=stop)
        outside.start()
        outside.join()  # it puts a word into a queue, which never waits

    def prepare_engine(self, engine: AsyncEngine) -> None:
        """Set the pragmas on connect, and begin IMMEDIATE but for read sessions."""

        @event.listens_for(engine.sync_engine, "do_connect")
        def open_by_us(
            _dialect: object, _record: object, _args: object, options: dict[str, Any]
        ) -> None:
            options.setdefault("async_creator_fn", _open)

        @event.listens_for(engine.sync_engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver must not begin by itself
            cursor = connection.cursor()
            _switch_to_wal(cursor)
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute("PRAGMA database_list")
            main = cursor.fetchone()
            if main is not None:  # as it is in the tests' sandbox
                setattr(connection.driver_connection, _OPENED, (main[2], _file_at(main[2])))
            cursor.close()

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Connection) -> None:
            if not connection.get_execution_options().get(READ_ONLY):
                connection.exec_driver_sql("BEGIN IMMEDIATE")


def _file_at(path: str) -> _File:
    try:
        found = os.stat(path)  # noqa: PTH116 - at each checkout, and a Path makes it a fifth slower
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def _open(*args: Any, **options: Any) -> Any:
    """Open a connection, as SQLAlchemy does; one that fails leaves no thread behind.

    The driver lets that thread end by itself, and report so to the loop: which may be closed by
    then, as at the end of a command, so that the thread dies of it, with a traceback.
    """
    import aiosqlite

    connection: Any = aiosqlite.connect(*args, **options)
    # SQLAlchemy's dialect asks for it in the same way: before 0.22 the connection is the thread.
    thread = connection if isinstance(connection, threading.Thread) else connection._thread  # noqa: SLF001
    thread.daemon = True
    try:
        return await connection
    except Exception:
        thread.join(_ENDING)
        raise


def _switch_to_wal(cursor: Any) -> None:
    """Have the file's changes go to a log of their own; it stays so, for whoever opens it next.

    Two that open a new file at once would wait for each other here, so SQLite refuses one of them
    at once, whatever the busy timeout is.
    """
    cursor.execute("PRAGMA busy_timeout")  # the driver's `timeout`, in milliseconds
    answer = cursor.fetchone()  # None in the tests' sandbox, which has no settings of its own
    deadline = time.monotonic() + (answer[0] / 1000 if answer else 0)
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            await_only(asyncio.sleep(random.uniform(0.001, 0.02)))
        else:
            return


def _begin(coroutine: Any) -> None:
    """Put a call into the connection's thread, without a coroutine that waits for its end."""
    with contextlib.suppress(StopIteration, ValueError, sqlite3.ProgrammingError):
        coroutine.send(None).cancel()  # the future of its result, which nobody wants
    coroutine.close()


class MemoryDatabase:
    """The private file behind a `:memory:` URL, gone after `remove()`.

    SQLite's own in-memory database belongs to one connection: sessions would see each other's
    uncommitted rows, and a rollback of one would take the commits of another with it.
    """

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="reviewpoint_db_")
        self._remove = finalize(self, _remove_own, self._folder, os.getpid())

    def url(self, configured: URL) -> URL:
        """Return the configured URL with this file as its database."""
        return configured.set(database=str(Path(self._folder) / "memory.sqlite3"))

    def remove(self) -> None:
        """Delete the file."""
        self._remove()


def _remove_own(folder: str, maker: int) -> None:
    """Delete a folder, unless this is a forked child of the process that made it."""
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)
