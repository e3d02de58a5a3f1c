"""One host of `read_url`: its engines, and what is known of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Literal

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from reviewpoint_db.engine import elastic_pool
from reviewpoint_db.loops import EnginesByLoop
from reviewpoint_db.replica_watch import Address, Seen

__all__ = ["Replica", "ReplicaState"]

State = Literal["unknown", "reading", "lagging", "dead"]
Role = Literal["replica", "primary"]


class ReplicaState(msgspec.Struct, frozen=True, kw_only=True):
    """One host of `read_url` at one moment.

    Args:
        host: Its name and port.
        role: "replica", or "primary" when it was promoted; None while it never answered.
        state: "reading", "lagging" (behind by more than `max_replica_lag`), "dead", or "unknown"
            before the first answer.
        lag: Seconds that it is behind at most; None where that is not known.
        error: Why it does not answer.
    """

    host: str
    role: Role | None
    state: State
    lag: float | None
    error: str | None


class Replica:
    """A host of `read_url`.

    Args:
        name: Host and port, to show.
        address: Says how to connect.
        create: Makes an engine for it.
    """

    def __init__(
        self, name: str, address: Callable[[], Address], create: Callable[[Address], AsyncEngine]
    ) -> None:
        self.name = name
        self.address = address
        self.engines = EnginesByLoop(lambda: create(address()))
        #: Whether reads go there; looked at before each.
        self.usable = False
        #: Whether a session has lost its connection since the host was seen last.
        self.lost = False
        self.seen: Seen | None = None

    def engine(self) -> AsyncEngine:
        """Return its engine of the running loop."""
        return self.engines.current()

    def state(self) -> ReplicaState:
        """Return what is known of the host now."""
        seen = self.seen
        if seen is None:
            return ReplicaState(host=self.name, role=None, state="unknown", lag=None, error=None)
        error = seen.error or ("a connection to it was lost" if self.lost else None)
        state: State = "dead" if error else "reading" if self.usable else "lagging"
        role: Role | None = "replica" if seen.in_recovery else "primary"
        return ReplicaState(
            host=self.name,
            role=None if seen.error else role,
            state=state,
            lag=seen.lag,
            error=error,
        )

    def cut(self) -> None:
        """Cut the connections in use, each in its loop, so that whoever waits for them reads elsewhere."""
        for loop, engine in self.engines.with_loops():
            pool = elastic_pool(engine)
            if pool is not None:
                with contextlib.suppress(RuntimeError):  # that loop was closed just now
                    loop.call_soon_threadsafe(
                        pool.dismiss, f"The replica {self.name} does not answer."
                    )
