"""The last health report, for callers that do not check again; a change of it is logged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from reviewpoint_db.activity import Activity
    from reviewpoint_db.health_report import CheckResult, HealthReport

__all__ = ["HealthMemory"]


class HealthMemory:
    """The last report of one database.

    Args:
        activity: Learns whether the database can be reached, and counts the failures.
    """

    def __init__(self, activity: Activity) -> None:
        #: None before the first check.
        self.report: HealthReport | None = None
        #: When it ended, by the monotonic clock.
        self.at = float("-inf")
        self._activity = activity
        self._failing: dict[str, CheckResult] = {}

    @property
    def age(self) -> float:
        """Seconds since the last check; infinity before the first."""
        return time.monotonic() - self.at

    def note(self, report: HealthReport) -> None:
        """Keep a report, and log which checks have begun or ceased to fail."""
        self.report, self.at = report, time.monotonic()
        connection = report.checks[0]
        if connection.status == "unhealthy":
            self._activity.connection_failed(connection.detail or "no answer")
        elif connection.status == "healthy":  # degraded: the server is there, and refused this one
            self._activity.reachability.answered()
        failing = {check.name: check for check in report.failing if check is not connection}
        for name in sorted(failing.keys() - self._failing.keys()):
            logger.warning(
                "The check {!r} of database {!r} fails: {}",
                name,
                self._activity.name,
                failing[name].detail,
            )
        for name in sorted(self._failing.keys() - failing.keys()):
            logger.info("The check {!r} of database {!r} passes again", name, self._activity.name)
        self._failing = failing
