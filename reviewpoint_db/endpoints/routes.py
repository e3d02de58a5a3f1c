"""The table of the routes below `/db`, for the adapters to serve: what is where, for whom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from reviewpoint_db.endpoints.debug import debug, debug_server, debug_stacks
from reviewpoint_db.endpoints.health import health, live, ready
from reviewpoint_db.endpoints.live import live_figures
from reviewpoint_db.endpoints.metrics import metrics
from reviewpoint_db.endpoints.page import page

if TYPE_CHECKING:
    from reviewpoint_db.database import Database
    from reviewpoint_db.endpoints.access import Access
    from reviewpoint_db.endpoints.reply import Reply

__all__ = ("ROUTES", "OwnRoute", "routes_below")


class OwnRoute(NamedTuple):
    """One route.

    Args:
        path: Where it is below the adapter's path.
        answer: Makes the answer from the database and the request's headers (lower-case names).
        guarded: Whether it exists, and for whom, is for `Access` and the application's guards.
        detailed: Makes the answer for those who show the token, where it tells them more.
    """

    path: str
    answer: Callable[[Database, Mapping[str, str]], Awaitable[Reply]]
    guarded: bool = False
    detailed: Callable[[Database, Mapping[str, str]], Awaitable[Reply]] | None = None

    async def reply(self, database: Database, access: Access, headers: Mapping[str, str]) -> Reply:
        """Answer a request, or refuse it.

        Args:
            database: What the route tells of.
            access: Asks for the token, where there is one.
            headers: The request's.
        """
        refusal = access.check(headers.get("authorization")) if self.guarded else None
        if self.detailed is not None and access.shown(headers.get("authorization")):
            return await self.detailed(database, headers)
        return refusal or await self.answer(database, headers)


async def _health(database: Database, headers: Mapping[str, str]) -> Reply:
    details = database.config.debug_allowed
    return await health(database, accept=headers.get("accept", ""), details=details)


async def _health_in_detail(database: Database, headers: Mapping[str, str]) -> Reply:
    return await health(database, accept=headers.get("accept", ""), details=True)


async def _live(_: Database, __: Mapping[str, str]) -> Reply:
    return live()


async def _ready(database: Database, _: Mapping[str, str]) -> Reply:
    return await ready(database)


async def _debug(database: Database, _: Mapping[str, str]) -> Reply:
    return debug(database)


async def _debug_stacks(database: Database, _: Mapping[str, str]) -> Reply:
    return debug_stacks(database)


async def _debug_server(database: Database, _: Mapping[str, str]) -> Reply:
    return await debug_server(database)


async def _metrics(database: Database, _: Mapping[str, str]) -> Reply:
    return metrics(database)


async def _live_figures(database: Database, _: Mapping[str, str]) -> Reply:
    return await live_figures(database)


async def _page(_: Database, __: Mapping[str, str]) -> Reply:
    return page()


ROUTES: Final = (
    OwnRoute("/health", _health, detailed=_health_in_detail),
    OwnRoute("/health/live", _live),
    OwnRoute("/health/ready", _ready),
    OwnRoute("/debug", _debug, guarded=True),
    OwnRoute("/debug/stacks", _debug_stacks, guarded=True),
    OwnRoute("/debug/server", _debug_server, guarded=True),
    OwnRoute("/metrics", _metrics, guarded=True),
    OwnRoute("/debug/live", _live_figures, guarded=True),
    OwnRoute("/", _page, guarded=True),
)
"""All routes; an adapter that serves these serves those that are added here, too."""


def routes_below(path: str, access: Access) -> list[OwnRoute]:
    """Return the routes that exist.

    Args:
        path: What they are below. At the root itself there is no page: that is the application's.
        access: Says whether the guarded ones exist.
    """
    return [
        route
        for route in ROUTES
        if (access.mounted or not route.guarded) and (path or route.path != "/")
    ]
