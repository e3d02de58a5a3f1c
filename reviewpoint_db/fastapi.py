"""A database for a FastAPI application: one call, and `session: SessionDep` in its handlers.

    app = FastAPI()
    setup_database(app)

    @app.get("/")
    async def index(session: SessionDep) -> dict[str, int]:
        return {"answer": (await session.execute(text("select 42"))).scalar_one()}

With a session class of one's own (SQLModel's, say) the alias is one's own too:

    setup_database(app, session_class=SQLModelSession)
    SessionDep = Annotated[SQLModelSession, Depends(get_session)]
"""

# Annotations are evaluated here: older versions of FastAPI cannot read those of a callable object
# when they are texts.
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, params
from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import ASGIApp

from reviewpoint_db import starlette
from reviewpoint_db.adapters import checked_guards
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.migrations import Migrations
from reviewpoint_db.starlette.routes import Endpoint
from reviewpoint_db.starlette.setup import check_application, install, make_database
from reviewpoint_db.transaction import CommitMode

__all__ = [
    "ReadSessionDep",
    "ReadSessionOf",
    "SessionDep",
    "SessionOf",
    "get_read_session",
    "get_session",
    "setup_database",
]


def setup_database(
    app: FastAPI,
    config: DatabaseConfig | None = None,
    *,
    path: str | None = "/db",
    commit: CommitMode = "manual",
    metadata: MetaData | None = None,
    create_all: bool = False,
    session_class: type[AsyncSession] | None = None,
    guards: Sequence[params.Depends | Callable[..., Any]] | None = None,
    debug_token: str | None = None,
    freeze_gc: bool = False,
    migrations: str | Migrations | None = None,
) -> Database:
    """Give an application a database: sessions, health routes, and a start and stop with it.

    Call it before the application starts; middleware, routers, exception handlers and a lifespan
    may be added before or after. Two databases need two names (`DatabaseConfig.name`) and two
    paths. The routes are outside of the OpenAPI schema, and of the application's dependencies.

    Args:
        app: The application that the server runs (a mounted one gets no lifespan).
        config: The settings; None reads them from the environment.
        path: Where health and debug routes are served; None serves none.
        commit: "manual": the handler commits, all else is rolled back. "autocommit": 2xx and 3xx
            commit, everything else rolls back.
        metadata: The tables, for `create_all`.
        create_all: Create missing tables at the start (refused in prod).
        session_class: The sessions' class, in place of the config's.
        guards: Dependencies of the debug routes, which raise `HTTPException` to refuse. They run
            before the application's middleware, so `request.user` is not there yet.
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
    given = [
        guard if isinstance(guard, params.Depends) else Depends(guard)
        for guard in checked_guards(guards, also=params.Depends)
    ]

    def guarded(where: str, endpoint: Endpoint) -> APIRoute:
        route = APIRoute(
            where,
            endpoint,
            response_model=None,
            methods=["GET", "HEAD"],
            dependencies=given,
            dependency_overrides_provider=app,
        )
        route.app = _with_exit_stack(route.app)
        return route

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


def _with_exit_stack(route: ASGIApp) -> ASGIApp:
    """Give a route of FastAPI's the exit stack that it looks for, and that is made further inside."""
    try:
        from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
    except ImportError:  # pragma: no cover - older versions, whose routes bring their own
        return route
    return AsyncExitStackMiddleware(route)


async def get_session(connection: HTTPConnection) -> AsyncSession:
    """Depend on the session of a request or WebSocket: `Depends(get_session)`, or `SessionDep`.

    Tests replace it by `app.dependency_overrides[get_session]`.
    """
    # A coroutine, since FastAPI would run a plain function in a thread.
    return starlette.get_session(connection)


async def get_read_session(connection: HTTPConnection) -> AsyncSession:
    """Depend on the read session: `Depends(get_read_session)`, or `ReadSessionDep`."""
    return starlette.get_read_session(connection)


@dataclass(frozen=True)
class SessionOf:
    """Depend on the session of a database with a name of its own.

    Example:
        >>> ReportsSession = Annotated[AsyncSession, Depends(SessionOf("reports"))]

    Args:
        name: `DatabaseConfig.name`. Two of the same name are the same key for overrides.
    """

    name: str

    async def __call__(self, connection: HTTPConnection) -> AsyncSession:
        """Return the session, as FastAPI does when it resolves the dependency."""
        return starlette.get_session(connection, self.name)


@dataclass(frozen=True)
class ReadSessionOf:
    """Depend on the read session of a database with a name of its own.

    Example:
        >>> ReportsReader = Annotated[AsyncSession, Depends(ReadSessionOf("reports"))]

    Args:
        name: `DatabaseConfig.name`. Two of the same name are the same key for overrides.
    """

    name: str

    async def __call__(self, connection: HTTPConnection) -> AsyncSession:
        """Return the read session, as FastAPI does when it resolves the dependency."""
        return starlette.get_read_session(connection, self.name)


SessionDep = Annotated[AsyncSession, Depends(get_session)]
"""The request's session: `async def handler(session: SessionDep)` is all a handler needs."""

ReadSessionDep = Annotated[AsyncSession, Depends(get_read_session)]
"""The request's read session: one round trip a statement, no writes."""
