"""Merges the reports of a host's worker processes, for the live page."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from reviewpoint_db.endpoints.report import (
    MOST_NOTICES,
    MOST_STATEMENTS,
    MOST_WAITERS,
    HostReport,
    Notice,
    Statement,
    Waiter,
    WorkerReport,
)
from reviewpoint_db.snapshots import words_of

__all__ = ("all_hosts", "all_waiters", "all_workers", "latest_notices", "slowest_statements")

#: What is told where several processes say different things of a replica; the gravest first.
_GRAVEST: Final = (False, True, None)


def all_workers(workers: Iterable[WorkerReport], silent: Iterable[int]) -> list[dict[str, Any]]:
    """List them by their ids; of those who did not answer nothing else is known."""
    rows: list[dict[str, Any]] = [
        {
            "pid": worker.pid,
            "asked": worker.pid == os.getpid(),
            "gauges": worker.gauges,
            "outage": worker.outage,
        }
        for worker in workers
    ]
    rows += [{"pid": pid, "asked": False, "gauges": None, "outage": None} for pid in silent]
    return sorted(rows, key=lambda row: (row["pid"], row["gauges"] is None))


def all_waiters(workers: Iterable[WorkerReport]) -> list[Waiter]:
    """Add up who waits, by route; the most first."""
    found: dict[str, Waiter] = {}
    for each in (each for worker in workers for each in worker.waiters):
        other = found.get(each.route, Waiter(route=each.route, count=0, longest=0.0))
        found[each.route] = Waiter(
            route=each.route,
            count=each.count + other.count,
            longest=max(each.longest, other.longest),
        )
    return sorted(found.values(), key=lambda waiter: -waiter.count)[:MOST_WAITERS]


def slowest_statements(workers: Iterable[WorkerReport]) -> list[Statement]:
    """Merge the slowest statements by their shapes."""
    slowest: dict[str, Statement] = {}
    for each in (each for worker in workers for each in worker.statements):
        other = slowest.get(each.statement)
        if other is not None:
            longer = each if each.seconds > other.seconds else other
            each = msgspec.structs.replace(longer, count=each.count + other.count)  # noqa: PLW2901
        slowest[each.statement] = each
    return sorted(slowest.values(), key=lambda each: -each.seconds)[:MOST_STATEMENTS]


def latest_notices(notices: Iterable[Notice]) -> list[Notice]:
    """Return the last warnings, the newest first; those in the same words are one."""
    found: dict[tuple[str, str], Notice] = {}
    for each in sorted(notices, key=lambda notice: -notice.at):
        key = (each.kind, words_of(each.text))
        last = found.get(key)
        found[key] = (
            each if last is None else msgspec.structs.replace(last, count=last.count + each.count)
        )
    return [*found.values()][:MOST_NOTICES]


def all_hosts(workers: Iterable[WorkerReport]) -> tuple[HostReport, ...]:
    """Add up what they say of each host; of their judgements of a replica the gravest counts."""
    found: dict[str, HostReport] = {}
    for each in (each for worker in workers for each in worker.hosts):
        other = found.get(each.host)
        found[each.host] = each if other is None else _sum(other, each)
    return tuple(found.values())


def _sum(one: HostReport, other: HostReport) -> HostReport:
    if one.watched:
        told = min(one, other, key=lambda each: (_GRAVEST.index(each.alive), each.used))
    else:  # who has connections to it knows best, then who has asked at all
        told = max(one, other, key=lambda each: (each.used, each.alive is not None))
    lags = [each.lag for each in (one, other) if each.lag is not None]
    return msgspec.structs.replace(
        told,
        lag=max(lags, default=None),
        out=None if one.out is None or other.out is None else one.out + other.out,
        open=one.open + other.open,
    )
