"""The pool budget: what all processes may open, against what the server accepts. On paper, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from reviewpoint_db.config import DatabaseConfig

__all__ = ["Budget"]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Connections wanted and had.

    Example:
        >>> Budget(processes=12, size=10, overflow=20, limit=100, reserved=3).wanted
        360

    Args:
        processes: Those that share the server.
        size: `pool.size` of each.
        overflow: `pool.max_overflow` of each.
        limit: The server's `max_connections`.
        reserved: `superuser_reserved_connections` and `reserved_connections`.
        others: What other applications have open at present.
        replicas: Hosts of `read_url`. Each gets as many as the primary: a pool of the same limits, and
            a connection of each process that watches how far it is behind.
    """

    processes: int
    size: int
    overflow: int
    limit: int
    reserved: int = 3
    others: int = 0
    replicas: int = 0

    @classmethod
    def of(cls, config: DatabaseConfig, processes: int, limit: int, **known: int) -> Budget:
        """Take the pool's limits from a configuration."""
        pool = config.effective_pool
        return cls(
            processes=processes,
            size=pool.size,
            overflow=pool.max_overflow,
            limit=limit,
            replicas=len(config.read_hosts),
            **known,
        )

    @property
    def wanted(self) -> int:
        """What all processes can have open on one server at one time."""
        return self.processes * (self.size + self.overflow + self._watching)

    @property
    def _watching(self) -> int:
        return 1 if self.replicas else 0

    @property
    def free(self) -> int:
        """What the server has for them."""
        return max(0, self.limit - self.reserved - self.others)

    @property
    def fits(self) -> bool:
        """Whether there is enough."""
        return self.wanted <= self.free

    def __str__(self) -> str:
        """The arithmetic, for a terminal."""
        taken = f" and {self.others} of others" if self.others else ""
        watching = " + 1 that watches the replicas" if self.replicas else ""
        too = f", and as many on each of {self.replicas} replicas" if self.replicas else ""
        but = "and" if self.fits else "but"
        return (
            f"{self.processes} processes x (pool.size {self.size} + pool.max_overflow "
            f"{self.overflow}{watching}) = {self.wanted} connections{too}, {but} the server has "
            f"{self.free} (max_connections {self.limit} minus {self.reserved} reserved ones{taken})."
        )

    @property
    def fix(self) -> str:
        """What to do where it does not fit."""
        each = self.free // self.processes - self._watching
        if each < 1:
            return (
                "put PgBouncer in between (pgbouncer=true): not even one connection a process is "
                "left; or run fewer processes, or raise max_connections."
            )
        return (
            f"lower the pool to {each} connections a process, put PgBouncer in between, or raise "
            f"max_connections to {self.wanted + self.reserved + self.others}."
        )
