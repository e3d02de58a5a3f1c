"""Faults of the database, its hosts and the workers, in words: one function for each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from reviewpoint_db.endpoints.finding import Finding, waiting_words
from reviewpoint_db.endpoints.report import HostReport, WorkerReport, duration
from reviewpoint_db.failures import LATELY
from reviewpoint_db.health_report import HealthReport
from reviewpoint_db.sqlstate import hint_for

__all__ = (
    "failing",
    "failing_checks",
    "host_faults",
    "late",
    "silent",
    "unreachable",
    "unseen",
)

#: So many of the last statements, and such a share of them, have to fail before it is told.
_MANY_FAIL: Final = 5
_SHARE_FAILS: Final = 0.1


def unreachable(
    workers: Sequence[WorkerReport], health: HealthReport | None, address: str | None
) -> list[Finding]:
    """Say why the database cannot be reached, and since when."""
    outages = [(worker.outage_for or 0.0, worker.outage) for worker in workers if worker.outage]
    if not outages and health is not None and health.cause == "unreachable":
        outages = [(0.0, health.checks[0].detail or "no answer")]
    if not outages:
        return []
    seconds, cause = max(outages)
    where = f" at {address}" if address else ""
    is_so = f"has been unreachable for {duration(seconds)}" if seconds >= 1 else "is unreachable"
    waiting = waiting_words(sum(worker.gauges.waiting for worker in workers))
    text = f"The database{where} {is_so}: {cause}; {waiting}."
    return [Finding(0, "unreachable", text)]


def failing(workers: Sequence[WorkerReport]) -> list[Finding]:
    """Name the code with which most of the statements fail, where a good share does."""
    lately = [each for worker in workers for each in worker.failing]
    failed = sum(each.number for each in lately)
    done = sum(worker.succeeded for worker in workers)
    if failed < _MANY_FAIL or failed < _SHARE_FAILS * (failed + done):
        return []
    codes: Counter[str] = Counter()
    for each in lately:
        codes[each.code] += each.number
    code, number = codes.most_common(1)[0]
    routes: Counter[str] = Counter()
    for each in lately:
        if each.code == code:
            routes[each.handler] += each.number
    route, most = routes.most_common(1)[0]
    hint = hint_for(code)
    text = (
        f"{number / LATELY:.1f} statements a second fail with {code}, "
        f"{'all' if most == number else 'most often'} in {route}{f': {hint}' if hint else ''}"
    )
    return [Finding(0, "degraded", text if text.endswith("?") else f"{text}.")]


def silent(pids: Sequence[int]) -> list[Finding]:
    """Name the workers that did not answer."""
    if not pids:
        return []
    names = ", ".join(map(str, pids))
    who = f"Worker {names} does" if len(pids) == 1 else f"Workers {names} do"
    why = "something blocks its event loop (the log says what), or it is stopped"
    return [Finding(0, "degraded", f"{who} not answer: {why}.")]


def late(workers: Sequence[WorkerReport]) -> list[Finding]:
    """Name what blocked an event loop of late."""
    blocked = [(worker.late, worker) for worker in workers if worker.late is not None]
    if not blocked:
        return []
    seconds, worker = max(blocked, key=lambda each: each[0])
    text = (
        f"{worker.late_place or 'Something'} blocked the event loop of worker {worker.pid} for "
        f"{duration(seconds)}, and every request of it waited."
    )
    return [Finding(0, "degraded", text)]


def failing_checks(health: HealthReport | None) -> list[Finding]:
    """Name the application's own checks that fail; those of the connection and the pool come first."""
    own = health.checks[2:] if health else ()
    return [
        Finding(0, "degraded", f"The application's check {each.name!r} fails: {each.detail}.")
        for each in own
        if each.status == "unhealthy"
    ]


def host_faults(hosts: Sequence[HostReport], *, down: bool) -> list[Finding]:
    """Name the hosts that are down, and the replicas that are too far behind, as one finding."""
    faults = [
        f"{'replica' if host.watched else 'host'} {host.host} is {what}"
        for host in hosts
        if (what := _fault(host))
    ]
    if not faults:
        return []
    watched = [host for host in hosts if host.watched]
    reading = [host.host for host in watched if host.used]
    told = "; ".join(faults)
    told = told[0].upper() + told[1:]
    if down:  # what goes where then is no longer true
        return [Finding(0, "degraded", f"{told}.")]
    if any(_fault(host) for host in watched):
        told += f": reads go to {' and '.join(reading) if reading else 'the primary'}"
    else:
        taking = [host.host for host in hosts if host.used and not host.watched]
        told += f": connections go to {taking[0]}" if taking else ""
    return [Finding(0, "degraded", f"{told}.")]


def _fault(host: HostReport) -> str | None:
    if host.alive is False:
        return "down"
    if host.watched and not host.used and host.lag is not None:
        return f"{duration(host.lag)} behind and gets no reads"
    return None


def unseen(error: str | None) -> list[Finding]:
    """Say that the server did not tell who waits for whom."""
    text = f"The server did not say who waits for whom: {error}."
    return [Finding(0, "degraded", text)] if error else []
