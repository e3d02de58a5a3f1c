"""An application's databases from its start to after its end."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from litestar.exceptions import ImproperlyConfiguredException
from litestar.middleware import DefineMiddleware

from reviewpoint_db.adapters import check_at_start, running
from reviewpoint_db.draining import on_sigterm
from reviewpoint_db.freezing import frozen
from reviewpoint_db.metrics import reporting
from reviewpoint_db.migrations import Migrations

if TYPE_CHECKING:
    from litestar import Litestar
    from prometheus_client import CollectorRegistry

    from reviewpoint_db.activity import Event
    from reviewpoint_db.litestar.binding import Binding

__all__ = ("Lifecycle",)


class Lifecycle:
    """Starts databases before everything else of the application, and stops them after it.

    Litestar ends its lifespans before the event listeners, and those before the `on_shutdown`
    hooks; all of these may still use a database. So the start is a lifespan, and the stop is the
    last `on_shutdown` hook, which Litestar also runs when the start has failed half-way.

    Args:
        bindings: The application's databases.
    """

    def __init__(self, bindings: Sequence[Binding]) -> None:
        self._bindings = bindings
        #: What each run of the application began: several loops may run it, in threads of theirs.
        self._runs: defaultdict[asyncio.AbstractEventLoop, list[AsyncExitStack]] = defaultdict(list)

    @asynccontextmanager
    async def lifespan(self, app: Litestar) -> AsyncIterator[None]:
        """Start; while the application runs, pass events on and drain at SIGTERM."""
        started = AsyncExitStack()
        self._runs[asyncio.get_running_loop()].append(started)
        with ExitStack() as serving:
            for binding in self._bindings:
                database = binding.database
                serving.callback(database.activity.subscribe(_forwarder(app)))
                observed = binding.path is not None and binding.access.mounted
                await started.enter_async_context(running(database, observed=observed))
                serving.enter_context(on_sigterm(database.begin_draining))
            databases = [binding.database for binding in self._bindings]
            serving.enter_context(reporting(databases, _registry_of(app)))
            yield
        # What was sent on from other tasks and threads arrives before the emitter closes.
        await asyncio.sleep(0)
        for binding in self._bindings:
            # Listeners still run now and may use the database a last time.
            _emit(app, "db.stopped", {"database": binding.database.name})

    async def check(self) -> None:
        """Run the checks once the application's own `on_startup` hooks had their turn: they may migrate."""
        for binding in self._bindings:
            migrations = Migrations.of(binding.alchemy)
            await check_at_start(binding.database, migrations, guarded=binding.guarded)

    def freeze(self) -> None:
        """Freeze what is there until the stop; the last `on_startup` hook, after all lifespans."""
        self._runs[asyncio.get_running_loop()][-1].enter_context(frozen())

    async def stop(self) -> None:
        """Stop what was started, the last one first; the application may start again."""
        here = asyncio.get_running_loop()
        started = self._runs[here].pop()
        if not self._runs[here]:
            del self._runs[here]
        await started.aclose()


def _registry_of(app: Litestar) -> Callable[[], CollectorRegistry] | None:
    """Return what returns the registry of Litestar's Prometheus plugin, when that is used."""
    plugin = sys.modules.get("litestar.plugins.prometheus")
    if plugin is None or not any(
        isinstance(one, DefineMiddleware)
        and isinstance(one.middleware, type)
        and issubclass(one.middleware, plugin.PrometheusMiddleware)
        for one in app.middleware
    ):
        return None

    def registry() -> CollectorRegistry:
        from prometheus_client import REGISTRY

        return REGISTRY

    return registry


def _forwarder(app: Litestar) -> Any:
    loop = asyncio.get_running_loop()

    def forward(event: Event, data: dict[str, Any]) -> None:
        # The database may be used from another loop's thread; the emitter belongs to this one.
        loop.call_soon_threadsafe(_emit, app, event, data)

    return forward


def _emit(app: Litestar, event: Event, data: dict[str, Any]) -> None:
    # Litestar raises it when an event has no listener.
    with suppress(ImproperlyConfiguredException):
        app.emit(event, **data)
