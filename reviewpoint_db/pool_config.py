"""The limits of a connection pool."""

from __future__ import annotations

from typing import Literal

import msgspec

from reviewpoint_db.settings import check_number, refuse

__all__ = ["ByEnvironment", "PoolConfig"]


class ByEnvironment(int):
    """A default that says "not given": the environment decides."""

    __str__ = int.__repr__

    def __repr__(self) -> str:
        return "by environment"


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of a connection pool; times in seconds.

    Args:
        size: Connections that are kept open. The default depends on the environment.
        max_overflow: Additional connections in a burst. The default depends on the environment.
        timeout: One deadline for acquiring a connection: queue, connect, verification, retries.
        queue_target: Overload: while no request is served within this time, one that would wait twice
            as long gets a 503 at once, so that others are served while their clients still wait.
            0: none is refused before `timeout`.
        idle_timeout: How long a burst connection stays open after it is returned.
        max_lifetime: Age at which a connection is replaced, less up to 10% at random.
        ping_after_idle: A connection idle for longer is verified by a round trip.
        reset_on_return: How to end a transaction that a returned connection still has open.

    Example:
        >>> PoolConfig(size=3, max_overflow=0).timeout
        10.0
    """

    size: int = ByEnvironment(5)
    max_overflow: int = ByEnvironment(10)
    timeout: float = 10.0
    queue_target: float = 0.0
    idle_timeout: float = 60.0
    max_lifetime: float = 1800.0
    ping_after_idle: float = 0.5
    reset_on_return: Literal["rollback", "commit"] = "rollback"

    def __post_init__(self) -> None:
        check_number("pool.size", self.size, lowest=1, whole=True)
        check_number("pool.max_overflow", self.max_overflow, lowest=0, whole=True)
        check_number("pool.timeout", self.timeout, lowest=1)
        check_number("pool.queue_target", self.queue_target, lowest=0)
        check_number("pool.idle_timeout", self.idle_timeout, lowest=0)
        check_number("pool.max_lifetime", self.max_lifetime, lowest=1)
        check_number("pool.ping_after_idle", self.ping_after_idle, lowest=0)
        reset: object = self.reset_on_return
        if reset not in {"rollback", "commit"}:
            raise refuse("pool.reset_on_return", repr(reset), "unknown", "use rollback or commit")

    @property
    def sized(self) -> bool:
        """Whether `size` or `max_overflow` was given."""
        return not (
            isinstance(self.size, ByEnvironment) and isinstance(self.max_overflow, ByEnvironment)
        )
