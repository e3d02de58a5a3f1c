"""What a health check found out: its report, its causes, and which of them counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

__all__ = ("OWN_CHECKS", "Cause", "CheckResult", "HealthReport", "Status", "report_of")

Status = Literal["healthy", "degraded", "unhealthy"]
Cause = Literal[
    "unreachable",
    "check_failed",
    "saturated",
    "event_loop_late",
    "file_lost",
    "migrations_pending",
]
#: The cause that each check of ours stands for, besides those of connection and pool.
_CAUSES: Final[dict[str, Cause]] = {
    "event_loop": "event_loop_late",
    "file": "file_lost",
    "migrations": "migrations_pending",
}

#: The names of what is looked at in any case: an application's check has another one.
OWN_CHECKS: Final = frozenset(
    {"connection", "event_loop", "file", "migrations", "pool", "replicas"}
)


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One of the things that were looked at.

    Args:
        name: "connection", "pool", "file", "event_loop", "migrations", or the name an application gave to its own check.
        status: What it says by itself.
        connected_in: Seconds until a connection was there, for "connection".
        latency: Seconds it took then; None where nothing was measured.
        detail: What is wrong, safe to show; None when nothing is.
        code: The database's error code, where there is one.
        hint: What to do about a database that cannot be reached.
    """

    name: str
    status: Status
    connected_in: float | None = None
    latency: float | None = None
    detail: str | None = None
    code: str | None = None
    hint: str | None = None


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a database at one moment.

    Args:
        status: "healthy"; "degraded": reachable, but the pool has been full for 5 s,
            the event loop was late, SQLite's file was replaced, or migrations are pending;
            "unhealthy": unreachable, or a check of the application failed.
        cause: Why it is not healthy.
        connected_in: Seconds until a connection was there; None when there was none.
        latency: Seconds of one round trip on it.
        checked_at: When the check ended.
        checks: What was looked at: "connection", "pool", "file" when SQLite's was replaced in the last 30
            seconds, "event_loop" when it was late in that time, "migrations" when some are pending, then the application's own.
    """

    status: Status
    cause: Cause | None
    connected_in: float | None
    latency: float | None
    checked_at: datetime
    checks: tuple[CheckResult, ...]

    @property
    def failing(self) -> tuple[CheckResult, ...]:
        """What is unhealthy: why the whole is."""
        return tuple(check for check in self.checks if check.status == "unhealthy")


def report_of(
    connection: CheckResult,
    pool: CheckResult,
    ours: list[CheckResult],
    others: list[CheckResult],
) -> HealthReport:
    """Judge what was looked at; the gravest cause is the one that is told.

    Args:
        connection: Whether the database can be reached.
        pool: Whether it is full.
        ours: What is wrong besides, the gravest first.
        others: The application's own checks.
    """
    status: Status = "healthy"
    cause: Cause | None = None
    if connection.status == "unhealthy":
        status, cause = "unhealthy", "unreachable"
    elif any(other.status == "unhealthy" for other in others):
        status, cause = "unhealthy", "check_failed"
    elif "degraded" in {connection.status, pool.status}:
        status, cause = "degraded", "saturated"
    elif ours:
        status, cause = "degraded", _CAUSES[ours[0].name]
    return HealthReport(
        status=status,
        cause=cause,
        connected_in=connection.connected_in,
        latency=connection.latency,
        checked_at=datetime.now(UTC),
        checks=(connection, pool, *ours, *others),
    )
