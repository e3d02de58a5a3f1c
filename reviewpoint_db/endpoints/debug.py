"""The debug route: the original module's dictionary, and what lies behind its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from reviewpoint_db.endpoints.reply import Reply, json_reply

if TYPE_CHECKING:
    from reviewpoint_db.activity import ActivitySnapshot, HistogramSnapshot
    from reviewpoint_db.database import Database

__all__ = ("debug",)


def debug(database: Database) -> Reply:
    """Answer `GET /debug`: the original's keys, then pool, timings (in seconds) and holders.

    Args:
        database: The database to describe; its URL is shown without secrets.
    """
    snapshot = database.activity.snapshot()
    content: dict[str, Any] = {
        **database.debug_info(),
        "name": database.name,
        "url": database.config.safe_url,
        "environment": database.config.effective_environment,
        "pool": _pool(database),
        "totals": _totals(snapshot),
        "timings": {
            "wait": _timing(snapshot.wait),
            "use": _timing(snapshot.use),
            "creation": _timing(snapshot.creation),
        },
        "holders": snapshot.holders,
    }
    return json_reply(200, content)


def _pool(database: Database) -> dict[str, Any]:
    info = database.debug_info()
    return {
        "config": msgspec.to_builtins(database.config.effective_pool),
        "size": info["pool_size"],
        "checked_out": info["pool_checked_out"],
        "checked_in": info["pool_checked_in"],
        "overflow": info["pool_overflow"],
    }


def _totals(snapshot: ActivitySnapshot) -> dict[str, Any]:
    return {
        "acquired": snapshot.acquired,
        "waited": snapshot.waited,
        "canceled": snapshot.canceled,
        "timed_out": snapshot.timed_out,
        "opened": snapshot.opened,
        "pings": snapshot.pings,
        "closed": snapshot.closed,
    }


def _timing(histogram: HistogramSnapshot) -> dict[str, float | int | None]:
    return {
        "count": histogram.count,
        "total": histogram.total,
        "maximum": histogram.maximum,
        "p50": histogram.percentile(0.5),
        "p95": histogram.percentile(0.95),
        "p99": histogram.percentile(0.99),
    }
