"""Reachability: whether a database can be reached, as far as anybody has tried."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from loguru import logger

from reviewpoint_db.forks import on_fork

if TYPE_CHECKING:
    from reviewpoint_db.snapshots import WarningKind

__all__ = ["Reachability", "Unreachable"]


class Unreachable(NamedTuple):
    """Why a database cannot be reached; times are monotonic seconds.

    Args:
        cause: What the last attempt met, safe to show.
        since: When the first attempt failed.
        last: When the last one did.
    """

    cause: str
    since: float
    last: float


class _Activity(Protocol):
    """What this needs of an `Activity`, which stands below this module."""

    name: str

    def warn(self, kind: WarningKind, message: str) -> None: ...

    def emit(self, event: Any, **data: Any) -> None: ...

    def up_changed(self, *, up: bool) -> None: ...


class Reachability:
    """Whether the last attempt to reach a database succeeded; it is logged when that changes.

    Connects and health checks report to it; statements and checkouts do not.

    Example:
        >>> reachability = Activity("default").reachability
        >>> reachability.failed("ConnectionRefusedError: ...")
        >>> reachability.failure.cause
        'ConnectionRefusedError: ...'
        >>> reachability.answered()
        >>> reachability.failure is None
        True

    Args:
        activity: Tells those who listen.
    """

    def __init__(self, activity: _Activity) -> None:
        #: Why it cannot be reached, while that is so.
        self.failure: Unreachable | None = None
        self._activity = activity
        self._lock = threading.Lock()
        on_fork(self)

    def forget_parent(self) -> None:
        """Begin in a forked child, where no other thread has the lock."""
        self._lock = threading.Lock()

    def failed(self, cause: str) -> None:
        """Note that an attempt failed.

        Args:
            cause: Why, safe to show.
        """
        now = time.monotonic()
        with self._lock:
            before = self.failure
            self.failure = Unreachable(cause, now if before is None else before.since, now)
        if before is None:
            self._activity.up_changed(up=False)
            self._activity.warn(
                "unreachable",
                f"Database {self._activity.name!r} is unreachable: {cause}. It is tried again by "
                "itself, and a line says when it answers.",
            )
            self._activity.emit("db.unreachable", message=cause)

    def answered(self) -> None:
        """Note that a connect or a round trip succeeded."""
        with self._lock:
            before, self.failure = self.failure, None
        if before is None:
            return
        seconds = time.monotonic() - before.since
        self._activity.up_changed(up=True)
        logger.info("Database {!r} answers again after {:.1f} s", self._activity.name, seconds)
        self._activity.emit("db.reachable", seconds=seconds)
