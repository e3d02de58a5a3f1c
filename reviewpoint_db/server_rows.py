"""One connection as the server sees it, and one that waits for another."""

from __future__ import annotations

import msgspec

from reviewpoint_db.holder import HolderSnapshot

__all__ = ["Blocking", "ServerConnection"]


class ServerConnection(msgspec.Struct, frozen=True, kw_only=True):
    """A connection as the server sees it; times are in seconds.

    Args:
        pid: The server's process.
        application: Its `application_name`: `{name}@{host}:{pid of our process}`.
        own: Whether it is this application's, and not just one that blocks it.
        state: The server's word: "active", "idle in transaction", "idle".
        state_for: Since when.
        transaction_for: Since when its transaction is open.
        waits_for: What it waits for: kind and name of the server's wait event.
        lock: The lock that it waits for.
        statement: The shape of its last statement.
        blocked_by: The processes that it waits for.
        holder: Who has it, when it is this process's.
    """

    pid: int
    application: str
    own: bool = True
    state: str | None = None
    state_for: float | None = None
    transaction_for: float | None = None
    waits_for: str | None = None
    lock: str | None = None
    statement: str | None = None
    blocked_by: tuple[int, ...] = ()
    holder: HolderSnapshot | None = None

    @property
    def name(self) -> str:
        """The request that has it, or else the application and the process."""
        if self.holder is not None:
            return self.holder.origin or self.holder.task
        return f"{self.application or 'another application'} (pid {self.pid})"


class Blocking(msgspec.Struct, frozen=True, kw_only=True):
    """A connection waits for another one.

    Args:
        waiting_pid: The process that waits.
        blocking_pid: The process that it waits for.
        waiting: The request that waits.
        blocking: The request that it waits for.
        seconds: For how long.
        where: The line of the application at which the blocking one is at present.
        text: All of it in a sentence.
    """

    waiting_pid: int
    blocking_pid: int
    waiting: str
    blocking: str
    seconds: float | None
    where: str | None
    text: str

    @classmethod
    def between(cls, waiting: ServerConnection, blocking: ServerConnection) -> Blocking:
        """Say who waits for whom."""
        where = blocking.holder.where if blocking.holder is not None else None
        does = f"is in {where}" if where else f"is {blocking.state or 'in an unknown state'}"
        return cls(
            waiting_pid=waiting.pid,
            blocking_pid=blocking.pid,
            waiting=waiting.name,
            blocking=blocking.name,
            seconds=waiting.state_for,
            where=where,
            text=f"{waiting.name} waits for {blocking.name}, which {does}",
        )
