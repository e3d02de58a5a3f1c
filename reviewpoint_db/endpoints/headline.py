"""The sentence at the top of the page: who is to blame, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from reviewpoint_db.endpoints.report import (
    Blocking,
    HolderReport,
    HostReport,
    WorkerReport,
    duration,
)
from reviewpoint_db.failures import LATELY
from reviewpoint_db.health_report import HealthReport
from reviewpoint_db.history import Gauges
from reviewpoint_db.sqlstate import hint_for

__all__ = ("Headline", "State", "headline")

#: So many of the last statements, and such a share of them, have to fail before it is told.
_MANY_FAIL: Final = 5
_SHARE_FAILS: Final = 0.1

State = Literal["calm", "busy", "degraded", "exhausted", "leaking", "blocked", "unreachable"]


class Headline(msgspec.Struct, frozen=True):
    """The state in one word and in one sentence, and what else is wrong."""

    state: State
    text: str
    also: tuple[str, ...] = ()


class _Finding(NamedTuple):
    """A fault, and how many connections it explains."""

    weight: int
    state: State
    text: str


def headline(
    workers: Sequence[WorkerReport],
    blockings: Sequence[Blocking] = (),
    *,
    silent: Sequence[int] = (),
    hosts: Sequence[HostReport] = (),
    leak_threshold: float = 30.0,
    idle_threshold: float = 5.0,
    health: HealthReport | None = None,
    server_error: str | None = None,
    address: str | None = None,
) -> Headline:
    """Name the culprit.

    Where several things are wrong, the one that explains the most connections comes first, and the
    others follow in `also`.

    Args:
        workers: The processes that answered.
        blockings: Who waits for whom on the server.
        silent: The processes that did not answer.
        hosts: The database's hosts, where there are several.
        leak_threshold: Seconds after which a connection is held for too long.
        idle_threshold: Seconds after which a transaction in which nothing happens is too long.
        health: What the last health check found out.
        server_error: Why the server did not say who waits for whom, if it was asked.
        address: Where the database is, if it is in one place.
    """
    unreachable = _unreachable(workers, health, address)
    findings = [
        *unreachable,
        *sorted(
            [*_leaks(workers), *_blocked(blockings), *_exhausted(workers, blockings)],
            key=lambda finding: -finding.weight,
        ),
        *_failing(workers),
        *_silent(silent),
        *_checks(health),
        *_hosts(hosts, down=bool(unreachable)),
        *_late(workers),
        *_unseen(None if unreachable else server_error),
    ]
    if not findings:
        findings = [
            *_held_long(workers, leak_threshold),
            *_idle(workers, idle_threshold),
            *_busy(workers),
            _calm(workers),
        ][:1]
    first, *others = findings
    return Headline(first.state, first.text, tuple(other.text for other in others))


def _failing(workers: Sequence[WorkerReport]) -> list[_Finding]:
    """Name the code with which most of the statements fail, where a good share does."""
    failing = [each for worker in workers for each in worker.failing]
    failed = sum(each.number for each in failing)
    done = sum(worker.succeeded for worker in workers)
    if failed < _MANY_FAIL or failed < _SHARE_FAILS * (failed + done):
        return []
    codes: Counter[str] = Counter()
    for each in failing:
        codes[each.code] += each.number
    code, number = codes.most_common(1)[0]
    routes: Counter[str] = Counter()
    for each in failing:
        if each.code == code:
            routes[each.handler] += each.number
    route, most = routes.most_common(1)[0]
    hint = hint_for(code)
    text = (
        f"{number / LATELY:.1f} statements a second fail with {code}, "
        f"{'all' if most == number else 'most often'} in {route}{f': {hint}' if hint else ''}."
    )
    return [_Finding(0, "degraded", text)]


def _silent(pids: Sequence[int]) -> list[_Finding]:
    if not pids:
        return []
    names = ", ".join(map(str, pids))
    who = f"Worker {names} does" if len(pids) == 1 else f"Workers {names} do"
    why = "something blocks its event loop (the log says what), or it is stopped"
    return [_Finding(0, "degraded", f"{who} not answer: {why}.")]


def _late(workers: Sequence[WorkerReport]) -> list[_Finding]:
    late = [(worker.late, worker) for worker in workers if worker.late is not None]
    if not late:
        return []
    seconds, worker = max(late, key=lambda each: each[0])
    text = (
        f"{worker.late_place or 'Something'} blocked the event loop of worker {worker.pid} for "
        f"{duration(seconds)}, and every request of it waited."
    )
    return [_Finding(0, "degraded", text)]


def _checks(health: HealthReport | None) -> list[_Finding]:
    """Name the application's own checks that fail; those of the connection and the pool come first."""
    own = health.checks[2:] if health else ()
    return [
        _Finding(0, "degraded", f"The application's check {each.name!r} fails: {each.detail}.")
        for each in own
        if each.status == "unhealthy"
    ]


def _unseen(error: str | None) -> list[_Finding]:
    text = f"The server did not say who waits for whom: {error}."
    return [_Finding(0, "degraded", text)] if error else []


def _hosts(hosts: Sequence[HostReport], *, down: bool) -> list[_Finding]:
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
        return [_Finding(0, "degraded", f"{told}.")]
    if any(_fault(host) for host in watched):
        told += f": reads go to {' and '.join(reading) if reading else 'the primary'}"
    else:
        taking = [host.host for host in hosts if host.used and not host.watched]
        told += f": connections go to {taking[0]}" if taking else ""
    return [_Finding(0, "degraded", f"{told}.")]


def _fault(host: HostReport) -> str | None:
    if host.alive is False:
        return "down"
    if host.watched and not host.used and host.lag is not None:
        return f"{duration(host.lag)} behind and gets no reads"
    return None


def _unreachable(
    workers: Sequence[WorkerReport], health: HealthReport | None, address: str | None
) -> list[_Finding]:
    outages = [(worker.outage_for or 0.0, worker.outage) for worker in workers if worker.outage]
    if not outages and health is not None and health.cause == "unreachable":
        outages = [(0.0, health.checks[0].detail or "no answer")]
    if not outages:
        return []
    seconds, cause = max(outages)
    where = f" at {address}" if address else ""
    is_so = f"has been unreachable for {duration(seconds)}" if seconds >= 1 else "is unreachable"
    waiting = _waiting(sum(worker.gauges.waiting for worker in workers))
    text = f"The database{where} {is_so}: {cause}; {waiting}."
    return [_Finding(0, "unreachable", text)]


def _leaks(workers: Sequence[WorkerReport]) -> list[_Finding]:
    leaked = [holder for worker in workers for holder in worker.holders if holder.abandoned]
    findings = []
    for route, count in Counter(holder.route for holder in leaked).most_common():
        oldest = duration(max(holder.held for holder in leaked if holder.route == route))
        if count == 1:
            text = (
                f"A leak: the task that took a connection for {route} {oldest} ago has ended "
                "without returning it."
            )
        else:
            text = (
                f"A leak: the tasks that took {count} connections for {route} have ended without "
                f"returning them, the oldest {oldest} ago."
            )
        findings.append(_Finding(count, "leaking", text))
    return findings


def _blocked(blockings: Sequence[Blocking]) -> list[_Finding]:
    """One finding for each one that has a lock and waits for nobody."""
    waiting = {each.waiting_pid for each in blockings}
    ends = [each for each in blockings if each.blocking_pid not in waiting]
    if not ends:  # a deadlock, until the server ends it
        ends = list(blockings[:1])
    roots: dict[int, Blocking] = {}
    for each in ends:
        roots.setdefault(each.blocking_pid, each)
    findings = []
    for pid, root in roots.items():
        behind = _behind(pid, blockings)
        names = list(dict.fromkeys(each.waiting for each in behind))
        more = len({each.waiting_pid for each in behind}) - 1
        who = names[0] if more == 0 else f"{names[0]} and {more} more"
        since = max((each.seconds for each in behind if each.seconds is not None), default=None)
        if since is None:
            waits = "waits" if more == 0 else "wait"
        else:
            waits = "has waited" if more == 0 else "have waited up to"
            waits += f" {duration(since)}"
        where = root.blocking_state or "has the lock"
        does = (
            f"is in {root.place}" if root.place else f"is {where}" if root.blocking_state else where
        )
        text = f"{who} {waits} for {root.blocking}, which {does}."
        findings.append(_Finding(more + 2, "blocked", text))
    return findings


def _behind(pid: int, blockings: Sequence[Blocking]) -> list[Blocking]:
    """Who waits for a process, by others too; those who wait for it directly come first."""
    found: list[Blocking] = []
    seen: set[int] = set()
    front = [pid]
    while front:
        direct = [
            each
            for each in blockings
            if each.blocking_pid in front and each.waiting_pid not in seen
        ]
        found += direct
        front = [each.waiting_pid for each in direct]
        seen.update(front)
    return found


def _exhausted(workers: Sequence[WorkerReport], blockings: Sequence[Blocking]) -> list[_Finding]:
    full = [worker for worker in workers if worker.full]
    if not full:
        return []
    gauges = _total(full)
    elsewhere = len(workers) - len(full)
    which = f" of worker {full[0].pid}" if elsewhere and len(full) == 1 else ""
    held = [holder for worker in full for holder in worker.holders]
    locked = {pid for each in blockings for pid in (each.waiting_pid, each.blocking_pid)}
    free = [
        holder for holder in held if not holder.abandoned and holder.backend_pid not in locked
    ] or held
    if not free:
        text = f"All {gauges.out} connections{which} are in use; {_waiting(gauges.waiting)}."
        return [_Finding(1, "exhausted", text)]
    route, mine = _most(free)
    oldest = mine[0] if len(mine) == 1 else max(mine, key=lambda holder: holder.held)
    age = (
        f"for {duration(oldest.held)}"
        if len(mine) == 1
        else f"the oldest for {duration(oldest.held)}"
    )
    text = (
        f"{route} holds {len(mine)} of {gauges.out} connections{which}, {age}"
        f"{_where(mine)}; {_waiting(gauges.waiting)}."
    )
    return [_Finding(len(mine), "exhausted", text)]


def _held_long(workers: Sequence[WorkerReport], threshold: float) -> list[_Finding]:
    held = [holder for worker in workers for holder in worker.holders if holder.held > threshold]
    if not held:
        return []
    oldest = max(held, key=lambda holder: holder.held)
    text = f"{oldest.route} has held a connection for {duration(oldest.held)}{_where([oldest])}."
    return [_Finding(1, "busy", text)]


def _idle(workers: Sequence[WorkerReport], threshold: float) -> list[_Finding]:
    idle = [
        holder
        for worker in workers
        for holder in worker.holders
        if holder.state == "idle in transaction" and holder.state_for > threshold
    ]
    if not idle:
        return []
    longest = max(idle, key=lambda holder: holder.state_for)
    text = (
        f"{longest.route} has been idle in a transaction for {duration(longest.state_for)}"
        f"{_where([longest])}: its locks and its connection are kept from others."
    )
    return [_Finding(1, "busy", text)]


def _busy(workers: Sequence[WorkerReport]) -> list[_Finding]:
    gauges = _total(workers)
    if not gauges.waiting and (gauges.limit is None or gauges.out < 0.7 * gauges.limit):
        return []
    if not gauges.out:
        return []
    held = [holder for worker in workers for holder in worker.holders]
    by = ""
    if held:
        route, mine = _most(held)
        by = f", {len(mine)} of them by {route}{_where(mine)}"
    text = f"Busy: {_in_use(gauges)}{by}; {_waiting(gauges.waiting)}."
    return [_Finding(1, "busy", text)]


def _calm(workers: Sequence[WorkerReport]) -> _Finding:
    gauges = _total(workers)
    return _Finding(0, "calm", f"All calm: {_in_use(gauges)}, {_waiting(gauges.waiting)}.")


def _total(workers: Sequence[WorkerReport]) -> Gauges:
    return sum((worker.gauges for worker in workers), Gauges())


def _most(holders: Sequence[HolderReport]) -> tuple[str, list[HolderReport]]:
    """The route that holds the most connections, and what it holds."""
    route = Counter(holder.route for holder in holders).most_common(1)[0][0]
    return route, [holder for holder in holders if holder.route == route]


def _where(holders: Sequence[HolderReport]) -> str:
    """The function in which all of them are now, if it is one."""
    places = {holder.place for holder in holders}
    place = places.pop() if len(places) == 1 else None
    return f", in {place}" if place else ""


def _in_use(gauges: Gauges) -> str:
    limit = "" if gauges.limit is None else f" of {gauges.limit}"
    return f"{gauges.out}{limit} connections in use"


def _waiting(count: int) -> str:
    if not count:
        return "nobody waits"
    return "1 request waits" if count == 1 else f"{count} requests wait"
