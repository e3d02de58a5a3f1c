"""What PostgreSQL by asyncpg needs from the pool and the engine."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine

from reviewpoint_db.driver_errors import code_of
from reviewpoint_db.pgbouncer import Login, listen_for

__all__ = ["CockroachDB", "PostgreSQL"]


class PostgreSQL:
    """The `Backend` for asyncpg connections.

    Args:
        password_rotates: Whether a refused password may be the last one.
        pgbouncer: Whether PgBouncer is in between; None to find out at the login.
    """

    needs_ping = True

    def __init__(self, *, password_rotates: bool = False, pgbouncer: bool | None = None) -> None:
        self.password_rotates = password_rotates
        self._pgbouncer = pgbouncer
        #: What the engine of this backend knows of who answers it.
        self._login: Login | None = None

    def is_closed(self, driver: Any) -> bool:
        """Whether asyncpg saw the end of the connection; it notices the server's EOF at once."""
        return bool(driver.is_closed())

    def lost_file(self, driver: Any) -> str | None:  # noqa: ARG002 - there is no file
        """None."""
        return None

    def in_transaction(self, driver: Any) -> bool:
        """Whether the server's last word was that a transaction is open."""
        return bool(driver.is_in_transaction())

    def is_rolled_back(self, driver: Any) -> bool:  # noqa: ARG002 - needs no look
        """No: the server keeps the transaction until its end, and refuses to do more in it."""
        return False

    def check_commit(self, connection: Any) -> None:
        """Raise when the transaction failed: the server answers its COMMIT with a silent rollback."""
        cursor = connection.cursor()
        try:
            cursor.execute("SELECT 1")
        except Exception as error:
            if code_of(error) == "25P02":
                from reviewpoint_db.asyncpg_connection import NOTHING_STORED

                raise InvalidRequestError(NOTHING_STORED) from error
            raise
        finally:
            cursor.close()

    def pid(self, driver: Any) -> int | None:
        """The backend's process id, which the server told at the login; PgBouncer's is invented."""
        if self._login is not None and self._login.certain:
            return None
        pid: int = driver.get_server_pid()
        return pid

    def refuses_writes(self, driver: Any) -> bool:
        """Whether it is a standby or read-only by default; the server reports it with its answers.

        PostgreSQL before 14, and PgBouncer, do not report it: then it may be.
        """
        settings = driver.get_settings()
        return (
            getattr(settings, "in_hot_standby", "on") == "on"
            or getattr(settings, "default_transaction_read_only", "on") == "on"
        )

    async def ping(self, driver: Any, timeout: float) -> None:
        """Run one simple query: a single round trip (`fetchrow` takes two)."""
        await driver.execute("SELECT 1", timeout=timeout)

    async def close(self, driver: Any, timeout: float) -> None:
        """Say goodbye to the server for at most `timeout` seconds, then cut."""
        # asyncpg aborts the connection itself when its timeout passes.
        with contextlib.suppress(Exception):
            await driver.close(timeout=timeout)

    def terminate(self, driver: Any) -> None:
        """Abort the transport."""
        driver.terminate()

    def interrupt(self, driver: Any) -> None:
        """Nothing: asyncpg itself asks the server to cancel what its task gave up."""

    def abandon(self, driver: Any) -> None:
        """Shut the socket down by a duplicate of its descriptor: the loop cannot do it any more."""
        # asyncpg has no public way to its transport; without it the server keeps the backend.
        transport: Any = getattr(driver, "_transport", None)
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is not None and sock.fileno() >= 0:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(RuntimeError):  # "Event loop is closed"
            driver.terminate()
        loop = getattr(driver, "_loop", None)  # one that hangs will close it by itself
        own = getattr(transport, "_sock", None) if loop is None or loop.is_closed() else None
        if own is not None:  # asyncio's transport would close it in its finalizer, with a warning
            own.close()
            transport._sock = None  # noqa: SLF001

    def prepare_engine(self, engine: AsyncEngine) -> None:
        """See who answers the login; nothing is asked after it, from asyncpg 0.32 on."""

        @event.listens_for(engine.sync_engine, "do_connect")
        def choose_class(
            _dialect: object, _record: object, _args: object, options: dict[str, Any]
        ) -> None:
            from reviewpoint_db.asyncpg_connection import CheckedConnection  # imports asyncpg

            options.setdefault("connection_class", CheckedConnection)

        self._login = listen_for(engine, self._pgbouncer)


class CockroachDB(PostgreSQL):
    """The `Backend` for CockroachDB by asyncpg.

    What its login names as the process id is a part of a random key: it joins nothing, and must
    not be taken for PgBouncer's.
    """

    def __init__(self, *, password_rotates: bool = False, pgbouncer: bool | None = None) -> None:
        super().__init__(password_rotates=password_rotates, pgbouncer=bool(pgbouncer))

    def pid(self, driver: Any) -> int | None:  # noqa: ARG002 - nothing of it helps
        """None: there is no process for a connection."""
        return None
