"""Culprits: who holds connections or locks that others wait for, in words; else how much is in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reviewpoint_db.endpoints.finding import Finding, waiting_words
from reviewpoint_db.endpoints.report import Blocking, HolderReport, WorkerReport, duration
from reviewpoint_db.history import Gauges

__all__ = ("blocked", "busy", "calm", "exhausted", "held_long", "idle", "leaks")


def leaks(workers: Sequence[WorkerReport]) -> list[Finding]:
    """One finding for each route whose tasks ended without returning connections."""
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
        findings.append(Finding(count, "leaking", text))
    return findings


def blocked(blockings: Sequence[Blocking]) -> list[Finding]:
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
        findings.append(Finding(more + 2, "blocked", text))
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


def exhausted(workers: Sequence[WorkerReport], blockings: Sequence[Blocking]) -> list[Finding]:
    """Name who holds the most connections where there is none left."""
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
        text = f"All {gauges.out} connections{which} are in use; {waiting_words(gauges.waiting)}."
        return [Finding(1, "exhausted", text)]
    route, mine = _most(free)
    oldest = mine[0] if len(mine) == 1 else max(mine, key=lambda holder: holder.held)
    age = (
        f"for {duration(oldest.held)}"
        if len(mine) == 1
        else f"the oldest for {duration(oldest.held)}"
    )
    text = (
        f"{route} holds {len(mine)} of {gauges.out} connections{which}, {age}"
        f"{_where(mine)}; {waiting_words(gauges.waiting)}."
    )
    return [Finding(len(mine), "exhausted", text)]


def held_long(workers: Sequence[WorkerReport], threshold: float) -> list[Finding]:
    """Name who has held a connection for longer than that."""
    held = [holder for worker in workers for holder in worker.holders if holder.held > threshold]
    if not held:
        return []
    oldest = max(held, key=lambda holder: holder.held)
    text = f"{oldest.route} has held a connection for {duration(oldest.held)}{_where([oldest])}."
    return [Finding(1, "busy", text)]


def idle(workers: Sequence[WorkerReport], threshold: float) -> list[Finding]:
    """Name who has done nothing in a transaction for longer than that."""
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
    return [Finding(1, "busy", text)]


def busy(workers: Sequence[WorkerReport]) -> list[Finding]:
    """Say who holds the most, where most connections are in use or somebody waits."""
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
    text = f"Busy: {_in_use(gauges)}{by}; {waiting_words(gauges.waiting)}."
    return [Finding(1, "busy", text)]


def calm(workers: Sequence[WorkerReport]) -> Finding:
    """Say that all is well."""
    gauges = _total(workers)
    return Finding(0, "calm", f"All calm: {_in_use(gauges)}, {waiting_words(gauges.waiting)}.")


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
