"""What an `Activity` tells of one moment: immutable, and safe to show."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Final, Literal, NamedTuple

import msgspec

from reviewpoint_db.histogram import HistogramSnapshot
from reviewpoint_db.holder import HolderSnapshot
from reviewpoint_db.slowest import SlowSnapshot

__all__ = [
    "LATE_FOR",
    "ActivitySnapshot",
    "CloseReason",
    "FileLost",
    "LoopLate",
    "Warned",
    "WarningKind",
    "words_of",
]

#: What tells one warning from another of the same words: figures, and a request's id.
_VARYING: Final = re.compile(r"\[[^\]]*\]|\d+(\.\d+)?")

CloseReason = Literal[
    "idle", "lifetime", "lost", "ping_failed", "invalidated", "unclean", "disposed"
]
WarningKind = Literal[
    "leak",
    "idle_in_transaction",
    "slow_statement",
    "n_plus_one",
    "uncommitted_changes",
    "event_loop_late",
    "no_replica",
    "replica_lag_unknown",
    "replica_promoted",
    "unreachable",
    "file_lost",
]


#: Seconds for which a late event loop, or a lost file, is told of.
LATE_FOR: Final = 30.0


class LoopLate(NamedTuple):
    """The last time that an event loop was late.

    Args:
        ended: When that was over, in monotonic seconds.
        seconds: By how much.
        place: The line of the application that blocked it, as far as it is known.
    """

    ended: float
    seconds: float
    place: str | None = None

    @property
    def ago(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self.ended


class FileLost(NamedTuple):
    """The last time that a SQLite file was found removed or replaced.

    Args:
        noticed: When, in monotonic seconds.
        path: The file.
    """

    noticed: float
    path: str

    @property
    def ago(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self.noticed


class Warned(msgspec.Struct, frozen=True):
    """A warning that was logged.

    Args:
        at: When.
        kind: Of what.
        message: The log's text.
        origin: Who was to blame, as far as it is known.
        count: How often it has been said in the same words, this time included.
    """

    at: datetime
    kind: WarningKind
    message: str
    origin: str | None
    count: int = 1


def words_of(message: str) -> str:
    """Return what warnings that are told as one have in common."""
    return _VARYING.sub("#", message)


class ActivitySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All counters, timers and holders at one moment; times are in seconds.

    Args:
        engines_created: Engines, one an event loop.
        sessions_created: Sessions that were opened.
        connection_failures: Connects that failed, and health checks that found the database unreachable.
        acquired: Checkouts.
        waited: Checkouts that found no idle connection.
        waited_total: How long those waited altogether.
        canceled: Checkouts that were cancelled while they waited.
        timed_out: Checkouts whose deadline passed.
        opened: Connections that were opened.
        pings: Checkouts that verified their connection by a round trip.
        closed: Connections that were closed, by reason.
        wait: From the request for a connection to the verified connection.
        use: From checkout to return.
        creation: Of opening a connection.
        statements: Of executing a statement.
        statement_errors: Statements that failed, by the database's error code.
        sessions: From a session's first statement to its end, by handler.
        holders: Who holds connections, the longest first.
        waiters: Who waits for one, the longest first.
        slowest_sessions: The slowest handlers of the last hour.
        slowest_statements: The slowest statements of the last hour.
        warnings: How many there were, by kind.
        recent_warnings: The last of them, the latest first.
    """

    engines_created: int
    sessions_created: int
    connection_failures: int
    acquired: int
    waited: int
    waited_total: float
    canceled: int
    timed_out: int
    opened: int
    pings: int
    closed: dict[str, int]
    wait: HistogramSnapshot
    use: HistogramSnapshot
    creation: HistogramSnapshot
    statements: HistogramSnapshot
    statement_errors: dict[str, int]
    sessions: dict[str, HistogramSnapshot]
    holders: tuple[HolderSnapshot, ...]
    waiters: tuple[HolderSnapshot, ...]
    slowest_sessions: tuple[SlowSnapshot, ...]
    slowest_statements: tuple[SlowSnapshot, ...]
    warnings: dict[str, int]
    recent_warnings: tuple[Warned, ...]
