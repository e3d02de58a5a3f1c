"""A Litestar application on a small pool, with the table of notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Litestar

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.litestar import (
    ReviewPointDBPlugin,
)
from tests.support.notes import metadata

if TYPE_CHECKING:
    from reviewpoint_db.database import Database
    from reviewpoint_db.transaction import CommitMode


def make(
    url: str, *handlers: Any, commit: CommitMode = "autocommit", **settings: Any
) -> tuple[Litestar, Database]:
    plugin = ReviewPointDBPlugin(
        DatabaseConfig(url=url, pool=PoolConfig(size=2, max_overflow=0, timeout=1)),
        commit=commit,
        metadata=metadata,
        create_all=True,
    )
    return Litestar([*handlers], plugins=[plugin], **settings), plugin.database
