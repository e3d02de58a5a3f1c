"""WriteTrackingSession: remembers that it wrote, so that a client's next read finds what it wrote.

Used where reads go to replicas; `read_your_writes.py` tells the client.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session as SyncSession

from reviewpoint_db.errors import CommitOutcomeUnknownError
from reviewpoint_db.session import BoundSession
from reviewpoint_db.session_state import state_of

__all__ = ["WriteTrackingSession"]

_T = TypeVar("_T")


class WriteTrackingSession(BoundSession):
    """The synchronous half of a session that says in `SessionState.wrote` whether it wrote."""

    def noted(self, statement: Any, run: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Run a statement, and remember what may have written: all but a SELECT."""
        result = super().noted(statement, run, *args, **kwargs)
        if not getattr(statement, "is_select", False):
            _remember_write(self)
        return result

    def connection(self, *args: Any, **kwargs: Any) -> Connection:
        """Return the transaction's connection; what is done by it is not seen here."""
        _remember_write(self)
        return super().connection(*args, **kwargs)

    # These flush without the events of a flush.

    def bulk_save_objects(self, *args: Any, **kwargs: Any) -> None:
        """Like `Session.bulk_save_objects`."""
        _remember_write(self)
        super().bulk_save_objects(*args, **kwargs)

    def bulk_insert_mappings(self, *args: Any, **kwargs: Any) -> None:
        """Like `Session.bulk_insert_mappings`."""
        _remember_write(self)
        super().bulk_insert_mappings(*args, **kwargs)

    def bulk_update_mappings(self, *args: Any, **kwargs: Any) -> None:
        """Like `Session.bulk_update_mappings`."""
        _remember_write(self)
        super().bulk_update_mappings(*args, **kwargs)


@event.listens_for(WriteTrackingSession, "after_flush")
def _remember_write(session: SyncSession, *_: object) -> None:
    state = state_of(session)
    if state.wrote == "no":  # what is stored stays so, whatever becomes of the rest
        state.wrote = "perhaps"


@event.listens_for(WriteTrackingSession, "after_commit")
def _remember_stored(session: SyncSession) -> None:
    state = state_of(session)
    if state.wrote == "perhaps" and not session.in_nested_transaction():
        state.wrote = "stored"


@event.listens_for(WriteTrackingSession, "after_soft_rollback")
def _remember_unknown(session: SyncSession, _previous: object) -> None:
    """Count what may be stored as stored: a client that looks for it must not ask a replica."""
    state = state_of(session)
    unknown = isinstance(sys.exception(), CommitOutcomeUnknownError)  # why it is rolled back
    if unknown and state.wrote == "perhaps" and not session.in_nested_transaction():
        state.wrote = "unknown"
