"""UnitOfWorkMiddleware: where a request's sessions begin and end, in every framework.

It stands outermost: it makes the request's unit of work and releases it when everything is over,
streams and background tasks included. `commit_middleware.CommitMiddleware`, innermost, commits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from reviewpoint_db.context import current_units
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.read_your_writes import ReadYourWrites
from reviewpoint_db.server_timing import telling_times
from reviewpoint_db.sockets import Deny, SocketRefusal
from reviewpoint_db.transaction import UNITS, CommitMode, Terms, UnitOfWork

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from reviewpoint_db.asgi_types import ASGIApp, Message, Receive, Scope, Send
    from reviewpoint_db.database import Database

__all__ = ["UnitOfWorkMiddleware", "unit_of"]


def unit_of(scope: Scope, name: str = "default") -> UnitOfWork:
    """Return the unit of work of a request or WebSocket.

    Args:
        scope: The ASGI scope.
        name: The database's name.

    Raises:
        ConfigurationError: The application has no database of this name.
    """
    units = scope.get(UNITS) or {}
    unit: UnitOfWork | None = units.get(name)
    if unit is None:
        known = ", ".join(map(repr, units)) or "none"
        raise ConfigurationError(
            f"This application has no database named {name!r} (it has {known}). Install one with "
            "ReviewPointDBPlugin or setup_database."
        )
    return unit


class UnitOfWorkMiddleware:
    """Outermost: one unit of work a request, released whatever happens.

    Args:
        app: What it wraps.
        database: Whose sessions they are.
        commit: Who commits.
        origin: Names the handler of a scope.
        open_session: Opens the session of a scope in the database's place.
        deny: As of `SocketRefusal`.
    """

    __slots__ = (
        "_adds_headers",
        "_app",
        "_deny",
        "_name",
        "_read_your_writes",
        "_tells_times",
        "_terms",
    )

    def __init__(
        self,
        app: ASGIApp,
        database: Database,
        *,
        commit: CommitMode = "manual",
        origin: Callable[[Scope], str],
        open_session: Callable[[Scope], AsyncSession] | None = None,
        deny: Deny | None = None,
    ) -> None:
        self._app = app
        self._deny = deny
        self._name = database.name
        self._terms = Terms(database, commit == "autocommit", origin, open_session)
        self._tells_times = database.config.effective_environment == "dev"
        own_writes = database.replicas is not None and database.config.read_your_writes
        self._read_your_writes = ReadYourWrites(database) if own_writes else None
        self._adds_headers = self._tells_times or own_writes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._app(scope, receive, send)
            return
        units: dict[str, UnitOfWork] | None = scope.get(UNITS)
        if units is None:
            units = scope[UNITS] = {}
        elif self._name in units:
            # A mounted application's own database, of the same name as one around it, which goes
            # on at the same time (middlewares of Starlette run it in another task).
            units = dict(units)
            scope = {**scope, UNITS: units}
        unit = units[self._name] = UnitOfWork(self._terms, scope)
        if self._read_your_writes is not None:
            unit.required_lsn = self._read_your_writes.required_lsn(scope)
        socket = None
        if kind == "http":
            send = self._around(unit, scope, send) if self._adds_headers else _noting(unit, send)
        else:
            seconds = self._terms.database.config.retry_after
            socket = SocketRefusal(scope, send, seconds, self._deny)
            send = socket.send
        token = current_units.set(units)
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            unit.succeeded = False
            if socket is None or not await socket.refuse(error):
                raise
        finally:
            current_units.reset(token)
            if socket is not None:
                socket.leave(scope)
            if unit.opened:
                await unit.release()
            else:
                unit.close()

    def _around(self, unit: UnitOfWork, scope: Scope, send: Send) -> Send:
        """Wrap the `send` of a request whose answer gets headers of ours."""
        if self._read_your_writes is not None:
            send = self._read_your_writes.telling(unit, scope, send)
        send = _noting(unit, send)
        return telling_times(unit, send) if self._tells_times else send


def _noting(unit: UnitOfWork, send: Send) -> Send:
    """Note what the client is told."""

    # No coroutine of its own, and no more than this: it is called for every message of every response.
    def note_then_send(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            unit.status = message["status"]
        return send(message)

    return note_then_send
