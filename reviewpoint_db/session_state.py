"""SessionState: what this package keeps about a session, in the session's `info`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session as SyncSession

if TYPE_CHECKING:
    from reviewpoint_db.holder import Work
    from reviewpoint_db.read_session import ReadSource
    from reviewpoint_db.turns import Turns

__all__ = ["SessionState", "state_of"]

_KEY: Final = "reviewpoint_db"


class SessionState:
    """What we keep about a session, in its `info`."""

    __slots__ = (
        "closed_over_changes",
        "committed",
        "connections",
        "ended",
        "engine",
        "required_lsn",
        "source",
        "streaming",
        "turns",
        "uncommitted",
        "work",
        "writer",
        "wrote",
    )

    def __init__(self) -> None:
        #: The connections that the session's transactions took and that may still be out.
        self.connections: list[Connection] = []
        self.ended = False
        #: Of this loop, or where the transaction began.
        self.engine: Engine | None = None
        #: Whether something was flushed or executed that no COMMIT made permanent.
        self.uncommitted = False
        #: Whether the application closed it, and so lost changes.
        self.closed_over_changes = False
        #: Whether a transaction of it was committed.
        self.committed = False
        self.streaming = False
        #: Of the tasks that share a read session; None before its first use.
        self.turns: Turns | None = None
        #: What it did so far; None while it has taken no connection.
        self.work: Work | None = None
        #: The host that a read session stays with; None where it has not chosen.
        self.source: ReadSource | None = None
        #: The WAL position of the primary that a read session must see.
        self.required_lsn: int | None = None
        #: What is kept about the session whose COMMITs a read session must see: the same request's.
        self.writer: SessionState | None = None
        #: Whether it may have written, where that is asked for: not yet stored, then for good stored,
        #: or perhaps so, since its COMMIT was not answered.
        self.wrote: Literal["no", "perhaps", "stored", "unknown"] = "no"

    @property
    def stored(self) -> bool:
        """Whether what it wrote is, or may be, stored."""
        return self.wrote in ("stored", "unknown")


def state_of(session: SyncSession | AsyncSession) -> SessionState:
    """Return what we keep about a session."""
    state: SessionState | None = session.info.get(_KEY)
    if state is None:
        state = session.info[_KEY] = SessionState()
    return state
