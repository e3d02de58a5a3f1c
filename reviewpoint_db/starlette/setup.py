"""What an application calls: the setup, and the sessions of a request."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.routing import BaseRoute, Route

from reviewpoint_db import logs
from reviewpoint_db.adapters import checked_guards, checked_path
from reviewpoint_db.asgi import unit_of
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.endpoints.access import Access
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.migrations import Migrations
from reviewpoint_db.settings import refuse
from reviewpoint_db.starlette.installation import Installation, Installed
from reviewpoint_db.starlette.routes import Endpoint, make_routes
from reviewpoint_db.transaction import checked_commit

if TYPE_CHECKING:
    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import AsyncSession
    from starlette.responses import Response

    from reviewpoint_db.transaction import CommitMode

__all__ = [
    "Guard",
    "check_application",
    "get_read_session",
    "get_session",
    "install",
    "make_database",
    "setup_database",
]

Guard = Callable[[Request], Awaitable[None] | None]


def setup_database(
    app: Starlette,
    config: DatabaseConfig | None = None,
    *,
    path: str | None = "/db",
    commit: CommitMode = "manual",
    metadata: MetaData | None = None,
    create_all: bool = False,
    session_class: type[AsyncSession] | None = None,
    guards: Sequence[Guard] | None = None,
    debug_token: str | None = None,
    freeze_gc: bool = False,
    migrations: str | Migrations | None = None,
) -> Database:
    """Give an application a database: sessions, health routes, and a start and stop with it.

    Call it before the application starts; middleware, routes, exception handlers and a lifespan may
    be added before or after. Two databases need two names (`DatabaseConfig.name`) and two paths.

    Args:
        app: The application that the server runs (Starlette runs no lifespan of a mounted one).
        config: The settings; None reads them from the environment.
        path: Where health and debug routes are served; None serves none.
        commit: "manual": the handler commits, all else is rolled back. "autocommit": 2xx and 3xx
            commit, everything else rolls back.
        metadata: The tables, for `create_all`.
        create_all: Create missing tables at the start (refused in prod).
        session_class: The sessions' class, in place of the config's.
        guards: Called with the request of a debug route, and raise `HTTPException` to refuse it.
            They run before the application's middleware, so `request.user` is not there yet.
        debug_token: Asked of whoever opens a debug route.
        freeze_gc: Keep the garbage collector off all that the start-up made, while the application
            runs: shorter pauses.
        migrations: The folder of alembic's scripts, or a `Migrations` that names their table too: the
            start warns of those that were not applied, and health is degraded. None: nobody looks.

    Returns:
        The database, for jobs and commands.

    Raises:
        ConfigurationError: A setting is wrong, the application has started already, or another
            database of it has this name or path.
    """
    check_application(app)
    given = checked_guards(guards)

    def guarded(where: str, endpoint: Endpoint) -> BaseRoute:
        async def after_guards(request: Request) -> Response:
            for guard in given:
                verdict = guard(request)
                if inspect.isawaitable(verdict):
                    await verdict
            return await endpoint(request)

        return Route(where, after_guards)

    return install(
        app,
        make_database(config, metadata, create_all=create_all, session_class=session_class),
        path=path,
        commit=commit,
        debug_token=debug_token,
        guarded=guarded,
        guards_given=bool(given),
        freeze_gc=freeze_gc,
        migrations=migrations,
    )


def get_session(conn: HTTPConnection, name: str = "default") -> AsyncSession:
    """Return the session of a request or WebSocket, opened when it is first asked for.

    Args:
        conn: The request or WebSocket.
        name: The database's name, where there are several.

    Raises:
        ConfigurationError: `setup_database` was not called, or not for this name.
        SessionClosedError: The request is over.
    """
    return unit_of(conn.scope, name).session


def get_read_session(conn: HTTPConnection, name: str = "default") -> AsyncSession:
    """Return the read session of a request or WebSocket: one round trip a statement, no writes.

    Args:
        conn: The request or WebSocket.
        name: The database's name, where there are several.

    Raises:
        ConfigurationError: `setup_database` was not called, or not for this name.
        SessionClosedError: The request is over.
    """
    return unit_of(conn.scope, name).read_session


# What follows is shared with the FastAPI adapter.


def check_application(given: object) -> None:
    """Refuse what cannot be given a database.

    Raises:
        ConfigurationError: The message says what to give instead.
    """
    if isinstance(given, Starlette):
        return
    kind = type(given)
    shown = f"the class {given.__name__}" if isinstance(given, type) else f"a {kind.__name__}"
    fix = "give the application itself, not a router and not what wraps it"
    if isinstance(given, type):
        fix = f"give an instance: setup_database({given.__name__}())"
    elif isinstance(given, DatabaseConfig):
        fix = "give the application first: setup_database(app, config)"
    elif kind.__module__.startswith("litestar."):
        fix = "Litestar(..., plugins=[ReviewPointDBPlugin()]) does the same there"
    raise refuse("app", shown, "not a Starlette or FastAPI application", fix)


def make_database(
    config: DatabaseConfig | None,
    metadata: MetaData | None,
    *,
    create_all: bool,
    session_class: type[AsyncSession] | None,
) -> Database:
    """Make the database of an application, with the session class named at its setup."""
    if session_class is not None:
        config = config or DatabaseConfig.from_env()
        config = msgspec.structs.replace(config, session_class=session_class)
    return Database(config, metadata=metadata, create_all=create_all)


def install(
    app: Starlette,
    database: Database,
    *,
    path: str | None,
    commit: CommitMode,
    debug_token: str | None,
    guarded: Callable[[str, Endpoint], BaseRoute],
    guards_given: bool,
    freeze_gc: bool,
    migrations: str | Migrations | None,
) -> Database:
    """Wire a database into an application: middleware, routes, error handlers and lifespan.

    Args:
        app: The application.
        database: Its database, not started.
        path: As in `setup_database`.
        commit: As in `setup_database`.
        debug_token: As in `setup_database`.
        guarded: Makes a route that the application's guards stand before.
        guards_given: Whether there are any.
        freeze_gc: As in `setup_database`.
        migrations: As in `setup_database`.

    Returns:
        The database.
    """
    commit = checked_commit(commit)
    access = Access(database.config, guards_given=guards_given, debug_token=debug_token)
    routes: list[BaseRoute] = []
    if path is not None:
        path = checked_path(path)
        routes += make_routes(database, path, access, guarded)
    protected = guards_given or access.check(None) is not None
    Installation.of(app).add(
        Installed(
            database,
            path,
            commit,
            tuple(routes),
            guarded=protected,
            observed=path is not None and access.mounted,
            freeze_gc=freeze_gc,
            migrations=_found(migrations),
        )
    )
    logs.enable()
    return database


def _found(given: object) -> Migrations | None:
    migrations = Migrations(script_location=given) if isinstance(given, str) else given
    if migrations is None:
        return None
    if not isinstance(migrations, Migrations):
        kind = type(migrations).__name__
        raise refuse("migrations", f"a {kind}", "not the name of a folder", "give a string")
    if not migrations.present():
        where = migrations.script_location
        msg = f"migrations={where!r} is no folder of alembic's: there is no env.py in it."
        raise ConfigurationError(msg)
    return migrations
