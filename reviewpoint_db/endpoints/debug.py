"""The debug route: the original module's dictionary, and what lies behind its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from reviewpoint_db.endpoints.reply import Reply, json_reply

if TYPE_CHECKING:
    from reviewpoint_db.activity import ActivitySnapshot, HistogramSnapshot
    from reviewpoint_db.database import Database

__all__ = ("debug", "debug_server", "debug_stacks")


def debug(database: Database) -> Reply:
    """Answer `GET /debug`: the original's keys, then pool, timings (in seconds) and holders.

    Args:
        database: The database to describe; its URL is shown without secrets.
    """
    snapshot = database.activity.snapshot()
    late = database.activity.loop_late
    content: dict[str, Any] = {
        **database.debug_info(),
        "name": database.name,
        "url": database.config.safe_url,
        "environment": database.config.effective_environment,
        "pool": _pool(database),
        "replicas": database.replicas.states() if database.replicas is not None else (),
        "totals": _totals(snapshot),
        "timings": {
            "wait": _timing(snapshot.wait),
            "use": _timing(snapshot.use),
            "creation": _timing(snapshot.creation),
            "statements": _timing(snapshot.statements),
        },
        "sessions": {name: _timing(one) for name, one in snapshot.sessions.items()},
        "statement_errors": snapshot.statement_errors,
        "slowest_sessions": snapshot.slowest_sessions,
        "slowest_statements": snapshot.slowest_statements,
        "holders": snapshot.holders,
        "waiters": snapshot.waiters,
        "warnings": {"counts": snapshot.warnings, "recent": snapshot.recent_warnings},
        "event_loop_late": (
            None
            if late is None
            else {"ago": late.ago, "seconds": late.seconds, "place": late.place}
        ),
    }
    return json_reply(200, content)


def debug_stacks(database: Database) -> Reply:
    """Answer `GET /debug/stacks`: holders and waiters with where their tasks are at present."""
    activity = database.activity
    content = {"holders": activity.holders(stacks=True), "waiters": activity.waiters(stacks=True)}
    return json_reply(200, content)


async def debug_server(database: Database) -> Reply:
    """Answer `GET /debug/server`: the server's side, joined with our holders; 503 without it."""
    view = await database.look_at_server()
    return json_reply(503 if view.error else 200, view)


def _pool(database: Database) -> dict[str, Any]:
    info = database.debug_info()
    return {
        "config": msgspec.to_builtins(database.config.effective_pool),
        "size": info["pool_size"],
        "checked_out": info["pool_checked_out"],
        "checked_in": info["pool_checked_in"],
        "overflow": info["pool_overflow"],
        "gauges": database.gauges(),
    }


def _totals(snapshot: ActivitySnapshot) -> dict[str, Any]:
    return {
        "acquired": snapshot.acquired,
        "waited": snapshot.waited,
        "waited_total": snapshot.waited_total,
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
