"""The report of this process, for the live page and for the other workers of the host."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from reviewpoint_db.endpoints.hosts import host_reports
from reviewpoint_db.endpoints.report import (
    MOST_FRAMES,
    MOST_HOLDERS,
    MOST_NOTICES,
    MOST_ROUTES,
    MOST_STATEMENTS,
    MOST_TOLD,
    MOST_WAITERS,
    HolderReport,
    Notice,
    Statement,
    Waiter,
    WorkerReport,
    route_of,
)
from reviewpoint_db.snapshots import LATE_FOR, words_of

if TYPE_CHECKING:
    from reviewpoint_db.database import Database
    from reviewpoint_db.holder import HolderSnapshot
    from reviewpoint_db.snapshots import ActivitySnapshot

__all__ = ("encoded", "worker_report")


def worker_report(
    database: Database, holders: tuple[HolderSnapshot, ...] | None = None
) -> WorkerReport:
    """Describe this process as it is now; the tasks' stacks are read here, and nowhere before.

    Args:
        database: The database to describe.
        holders: Who holds its connections, with their stacks, as somebody has just seen it.
    """
    pid = os.getpid()
    if holders is None:
        holders = database.activity.holders(stacks=True)
    activity = database.activity.snapshot()
    late = database.activity.loop_late
    if late is not None and late.ago > LATE_FOR:
        late = None
    failing, succeeded = database.activity.failing_lately()
    failure, now = database.activity.reachability.failure, time.monotonic()
    routes = Counter(map(_route, holders))
    return WorkerReport(
        pid=pid,
        gauges=database.live.gauges(database.gauges()),
        outage=failure.cause if failure else None,
        outage_for=now - failure.since if failure else None,
        outage_ago=now - failure.last if failure else None,
        holders=_holders(holders[:MOST_TOLD], pid, routes),
        routes=dict(routes),
        waiters=_waiters(activity),
        history=database.live.history.samples,
        statements=_statements(activity),
        notices=_notices(activity, pid),
        failing=tuple(each._replace(handler=route_of(each.handler)) for each in failing),
        succeeded=succeeded,
        late=late.seconds if late else None,
        late_place=late.place if late else None,
        hosts=host_reports(database),
    )


def encoded(database: Database) -> bytes:
    """The report for another process to read."""
    return msgspec.json.encode(worker_report(database))


def _holders(
    holders: tuple[HolderSnapshot, ...], pid: int, routes: Counter[str]
) -> tuple[HolderReport, ...]:
    # Whom the headline blames is likely to be of these, and may have come last.
    most = {route for route, _ in routes.most_common(MOST_ROUTES)}
    told = []
    for number, each in enumerate(holders):
        route = _route(each)
        told.append(_holder(each, pid, stack=number < MOST_HOLDERS or route in most))
        most.discard(route)
    return tuple(told)


def _holder(holder: HolderSnapshot, pid: int, *, stack: bool) -> HolderReport:
    return HolderReport(
        id=f"{pid}-{holder.number}",
        route=_route(holder),
        origin=holder.origin,
        held=holder.held,
        abandoned=holder.abandoned,
        pid=pid,
        state=holder.state,
        state_for=holder.state_for,
        statement=holder.statement,
        place=_place(holder),
        stack=holder.stack[-MOST_FRAMES:] if stack else (),
        backend_pid=holder.pid,
    )


def _route(holder: HolderSnapshot) -> str:
    return route_of(holder.handler) if holder.handler else holder.task


def _waiters(activity: ActivitySnapshot) -> tuple[Waiter, ...]:
    longest: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for each in activity.waiters:  # the longest first
        longest.setdefault(_route(each), each.held)
        counts[_route(each)] += 1
    return tuple(
        Waiter(route=route, count=count, longest=longest[route])
        for route, count in counts.most_common(MOST_WAITERS)
    )


def _place(holder: HolderSnapshot) -> str | None:
    """The innermost function of the application, as its author would name it."""
    own = [frame.function for frame in holder.stack if frame.own]
    return own[-1].rpartition("<locals>.")[2] if own else None


def _statements(activity: ActivitySnapshot) -> tuple[Statement, ...]:
    return tuple(
        Statement(
            statement=each.name,
            seconds=each.maximum,
            count=each.count,
            origin=route_of(each.origin) if each.origin else None,
        )
        for each in activity.slowest_statements[:MOST_STATEMENTS]
    )


def _notices(activity: ActivitySnapshot, pid: int) -> tuple[Notice, ...]:
    found: dict[tuple[str, str], Notice] = {}
    for each in activity.recent_warnings:  # the newest of the same words knows how many there were
        found.setdefault(
            (each.kind, words_of(each.message)),
            Notice(
                at=each.at.timestamp(),
                kind=each.kind,
                text=each.message,
                pid=pid,
                count=each.count,
            ),
        )
    return tuple([*found.values()][:MOST_NOTICES])
