"""The request that a piece of code runs for.

The ASGI middleware sets one context variable per request; log lines, the
holders' list and the original module's `get_async_session()` read it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from reviewpoint_db.transaction import UnitOfWork

__all__ = ["SYSTEM_CHECKS", "Origin", "current_origin", "current_units", "describe_origin"]

#: For whom the system checks ask the server.
SYSTEM_CHECKS: Final = "system checks"

#: The units of work of the running request, by the name of their database.
current_units: ContextVar[dict[str, UnitOfWork] | None] = ContextVar(
    "reviewpoint_db_units", default=None
)

#: What a session outside of any request was opened for.
current_origin: ContextVar[str | None] = ContextVar("reviewpoint_db_origin", default=None)


class Origin(NamedTuple):
    """Who asks the database: a handler (`GET /papers list_papers`) and its request id."""

    handler: str
    request_id: str | None = None

    def __str__(self) -> str:
        """The handler, and the request id in brackets where there is one."""
        return f"{self.handler} [{self.request_id}]" if self.request_id else self.handler


def describe_origin() -> Origin | None:
    """Say for whom the calling code runs, or None outside of requests and named sessions."""
    units = current_units.get()
    if units:
        unit = next(iter(units.values()))
        return Origin(unit.origin, unit.request_id)
    name = current_origin.get()
    return Origin(name) if name else None
