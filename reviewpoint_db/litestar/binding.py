"""One database in one application: where it shows, and under which names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from reviewpoint_db.adapters import refuse_shared

if TYPE_CHECKING:
    from litestar.types import Guard

    from reviewpoint_db.database import Database
    from reviewpoint_db.endpoints.access import Access
    from reviewpoint_db.litestar.alchemy import SQLAlchemyAsyncConfig
    from reviewpoint_db.litestar.commit import CommitRule

__all__ = ("Binding", "refuse_equals")


class Binding(NamedTuple):
    """One database in one application: where its routes and under which keys its sessions are.

    Args:
        alchemy: What advanced-alchemy gets to see; its `database` is the database.
        rule: Who commits.
        path: What its routes are below; None for no routes.
        read_session_key: The handlers' name of the read session.
        access: Who may see its guarded routes.
        guards: The application's, for these.
        include_in_schema: Whether its routes are in the OpenAPI schema.
        own: Whether the plugin was given a `DatabaseConfig`, and not advanced-alchemy's.
    """

    alchemy: SQLAlchemyAsyncConfig
    rule: CommitRule
    path: str | None
    read_session_key: str
    access: Access
    guards: Sequence[Guard]
    include_in_schema: bool
    own: bool

    @property
    def database(self) -> Database:
        """The database."""
        return self.alchemy.database

    @property
    def guarded(self) -> bool:
        """Whether its guarded routes ask for anything."""
        return bool(self.guards) or self.access.check(None) is not None

    def __str__(self) -> str:
        where = "no routes" if self.path is None else f"path={self.path or '/'!r}"
        return (
            f"{self.database.name!r} ({self.database.config.safe_url}, {where}, "
            f"session_key={self.alchemy.session_dependency_key!r}, "
            f"read_session_key={self.read_session_key!r})"
        )


def refuse_equals(bindings: Sequence[Binding]) -> None:
    """Refuse databases of one application that have in common what only one can have.

    Raises:
        ConfigurationError: Names both, and the way out.
    """
    for one, other in combinations(bindings, 2):
        refuse_shared(one, other, session_keys=not _keys(one).isdisjoint(_keys(other)))


def _keys(binding: Binding) -> set[str]:
    return {binding.alchemy.session_dependency_key, binding.read_session_key}
