"""How full the pools of a database are, over all event loops of the process."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from reviewpoint_db.engine import elastic_pool

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["PoolGauges", "read_gauges"]


class PoolGauges(msgspec.Struct, frozen=True, kw_only=True):
    """The pools of one process at one moment, counted as one.

    Args:
        pools: How many there are: one an event loop.
        size: Connections that they keep.
        limit: Connections that they may have; None where there is no limit.
        open: Connections that are open, being opened or being closed.
        out: Connections in use.
        idle: Connections that nobody uses.
        waiting: Tasks that wait for one.
        full_for: Seconds for which neither a connection nor a slot was free.
        outage: Why the database accepts no connection at present.
    """

    pools: int = 0
    size: int = 0
    limit: int | None = 0
    open: int = 0
    out: int = 0
    idle: int = 0
    waiting: int = 0
    full_for: float = 0.0
    outage: str | None = None


def read_gauges(engines: Iterable[AsyncEngine]) -> PoolGauges:
    """Read the pools of these engines; other classes of pools than ours are left out."""
    now = time.monotonic()
    pools = [pool for pool in map(elastic_pool, engines) if pool is not None]
    limits = [pool.limit for pool in pools]
    since = [pool.full_since for pool in pools]
    return PoolGauges(
        pools=len(pools),
        size=sum(pool.size() for pool in pools),
        limit=None if float("inf") in limits else int(sum(limits)),
        open=sum(pool.total() for pool in pools),
        out=sum(pool.checkedout() for pool in pools),
        idle=sum(pool.checkedin() for pool in pools),
        waiting=sum(pool.waiting() for pool in pools),
        full_for=max((now - full for full in since if full is not None), default=0.0),
        outage=next(filter(None, (pool.outage() for pool in pools)), None),
    )
