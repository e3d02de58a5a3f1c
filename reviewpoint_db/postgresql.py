"""What PostgreSQL by asyncpg needs from the pool and the engine."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["PostgreSQL"]

_Hook = Callable[[Any], Awaitable[None]]
#: SQLAlchemy's hooks that set codecs on each new connection.
_CODEC_HOOKS: Final = (
    "setup_asyncpg_json_codec",
    "setup_asyncpg_jsonb_codec",
    "_disable_asyncpg_inet_codecs",
)
_TYPE_NUMBERS: Final = {"json": 114, "jsonb": 3802, "inet": 869, "cidr": 650}


class PostgreSQL:
    """The `Backend` for asyncpg connections."""

    needs_ping = True

    def is_closed(self, driver: Any) -> bool:
        """Whether asyncpg saw the end of the connection; it notices the server's EOF at once."""
        return bool(driver.is_closed())

    def in_transaction(self, driver: Any) -> bool:
        """Whether the server's last word was that a transaction is open."""
        return bool(driver.is_in_transaction())

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
        transport = getattr(driver, "_transport", None)
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                duplicate = socket.socket(fileno=os.dup(sock.fileno()))
                with duplicate:
                    duplicate.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(RuntimeError):  # "Event loop is closed"
            driver.terminate()

    def prepare_engine(self, engine: AsyncEngine) -> None:
        """Have new connections set up without asking the server what every server answers alike."""
        dialect: Any = engine.sync_engine.dialect
        for name in _CODEC_HOOKS:
            hook = getattr(dialect, name, None)
            if hook is not None:
                setattr(dialect, name, _without_introspection(hook))


def _without_introspection(hook: _Hook) -> _Hook:
    async def set_codecs(connection: Any) -> None:
        await hook(_Codecs(connection.driver_connection))

    return set_codecs


class _Codecs:
    """Stands in for a connection in SQLAlchemy's hooks, which call its `set_type_codec`.

    asyncpg looks each type up by its name, which costs two round trips a type and connection; the
    types of the server itself have the same number everywhere (its pg_type.dat).
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._connection = self  # where SQLAlchemy looks for asyncpg's connection

    async def set_type_codec(
        self,
        typename: str,
        *,
        schema: str,
        encoder: Any,
        decoder: Any,
        format: str,  # noqa: A002 - asyncpg's name
    ) -> None:
        """Do what asyncpg's method of this name does, for a type whose number is known."""
        try:
            # asyncpg has no public way to name a type by its number.
            settings = self._driver._protocol.get_settings()  # noqa: SLF001
            add_codec, oid = settings.add_python_codec, _TYPE_NUMBERS[typename]
        except (AttributeError, KeyError):
            await self._driver.set_type_codec(
                typename, schema=schema, encoder=encoder, decoder=decoder, format=format
            )
        else:
            add_codec(oid, typename, schema, [], "scalar", encoder, decoder, format)
