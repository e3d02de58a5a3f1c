"""Where an application is changed: its middleware stack, its lifespan, its exception handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.middleware import Middleware

from reviewpoint_db.adapters import check_at_start, refuse_shared, running
from reviewpoint_db.asgi import UnitOfWorkMiddleware
from reviewpoint_db.commit_middleware import CommitMiddleware
from reviewpoint_db.draining import on_sigterm
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.freezing import frozen
from reviewpoint_db.metrics import reporting
from reviewpoint_db.starlette.errors import (
    add_default_handlers,
    answer_commit_error,
    answer_handshake,
)
from reviewpoint_db.starlette.routes import RoutesMiddleware

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Lifespan, Scope

    from reviewpoint_db.database import Database
    from reviewpoint_db.migrations import Migrations
    from reviewpoint_db.transaction import CommitMode

__all__ = ["Installation", "Installed"]


class Installed(NamedTuple):
    """One database of an application."""

    database: Database
    path: str | None
    commit: CommitMode
    routes: tuple[BaseRoute, ...]
    #: Whether guards or a token stand before the debug routes.
    guarded: bool
    #: Whether the debug routes exist.
    observed: bool
    #: Whether the garbage collector leaves alone what the start-up made.
    freeze_gc: bool
    #: Where its migrations are, if they are to be checked.
    migrations: Migrations | None

    def __str__(self) -> str:
        where = "without routes" if self.path is None else f"at {self.path or '/'}"
        return f"{self.database.name!r} ({self.database.config.safe_url}, {where})"


class Installation:
    """The databases of one application, and where it was changed to meet them."""

    def __init__(self, app: Starlette) -> None:
        self.app = app
        self.installed: list[Installed] = []
        self.running: set[asyncio.AbstractEventLoop] = set()
        self.lifespan: Lifespan[Any] | None = None
        self.build_without_us = app.build_middleware_stack
        # `user_middleware` alone would do until the application adds one more: the order is known
        # only when the stack is built. (opentelemetry's FastAPI instrumentation does the same.)
        app.build_middleware_stack = self.build  # type: ignore[method-assign]
        self.wrap_lifespan()

    @classmethod
    def of(cls, app: Starlette) -> Installation:
        """Return that of an application, made at its first database."""
        if app.middleware_stack is not None:
            msg = "The application has started already: call setup_database() where it is made."
            raise ConfigurationError(msg)
        found: Installation | None = getattr(app.state, "reviewpoint_db", None)
        if found is None:
            app.state.reviewpoint_db = found = cls(app)
            app.state.databases = {}
        return found

    def add(self, new: Installed) -> None:
        """Add a database, if its name and path are its own."""
        for other in self.installed:
            refuse_shared(other, new)
        self.installed.append(new)
        self.app.state.databases[new.database.name] = new.database

    def build(self) -> ASGIApp:
        """Build the application's middleware stack with ours around and inside of its own."""
        app = self.app
        # Once more, for an application that replaced its lifespan after the setup.
        self.wrap_lifespan()
        add_default_handlers(app)
        outer, inner = [], []
        for one in self.installed:
            outer.append(
                Middleware(
                    UnitOfWorkMiddleware,
                    one.database,
                    commit=one.commit,
                    origin=_origin,
                    deny=answer_handshake,
                )
            )
            if one.commit == "autocommit":
                answer = partial(answer_commit_error, app)
                inner.append(Middleware(CommitMiddleware, one.database, answer=answer))
        routes = [route for one in self.installed for route in one.routes]
        outer.append(Middleware(RoutesMiddleware, routes, app))
        theirs = app.user_middleware
        app.user_middleware = [*outer, *theirs, *inner]
        try:
            return self.build_without_us()
        finally:
            app.user_middleware = theirs

    def wrap_lifespan(self) -> None:
        """Put our start before, and our stop after, what the application has as its lifespan."""
        router = self.app.router
        if router.lifespan_context is self.lifespan:
            return
        theirs = router.lifespan_context

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[Any]:
            async with self.run(), theirs(app) as state:
                freezes = any(one.freeze_gc for one in self.installed)
                with frozen() if freezes else nullcontext():
                    yield state

        router.lifespan_context = self.lifespan = lifespan

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the databases; inside of another run of this loop, nothing."""
        loop = asyncio.get_running_loop()
        if loop in self.running:
            yield
            return
        self.running.add(loop)
        try:
            async with AsyncExitStack() as stack:
                stack.enter_context(reporting([one.database for one in self.installed]))
                for one in self.installed:
                    await stack.enter_async_context(running(one.database, observed=one.observed))
                    stack.enter_context(on_sigterm(one.database.begin_draining))
                    await check_at_start(one.database, one.migrations, guarded=one.guarded)
                yield
        finally:
            self.running.discard(loop)


def _origin(scope: Scope) -> str:
    """Name the handler of a request, for log lines and the list of who holds connections."""
    endpoint = scope.get("endpoint")
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    # The template, not the path: a path may bear a token.
    where = getattr(scope.get("route"), "path", "")
    name = getattr(endpoint, "__qualname__", type(endpoint).__qualname__) if endpoint else "?"
    return " ".join(filter(None, (scope.get("method", "WEBSOCKET"), where, name)))
