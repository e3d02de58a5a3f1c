"""The document behind the live page: all workers of this host, the server's view, the culprit."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from reviewpoint_db.endpoints.headline import headline
from reviewpoint_db.endpoints.hosts import address_of
from reviewpoint_db.endpoints.merge import (
    all_hosts,
    all_waiters,
    all_workers,
    latest_notices,
    slowest_statements,
)
from reviewpoint_db.endpoints.reply import Reply, json_reply
from reviewpoint_db.endpoints.report import (
    MOST_BLAMED,
    MOST_HOLDERS,
    MOST_ROUTES,
    Blocking,
    HolderReport,
    WorkerReport,
    route_of,
)
from reviewpoint_db.endpoints.worker import encoded, worker_report
from reviewpoint_db.history import INTERVAL, Gauges, merged
from reviewpoint_db.pgbouncer import NOT_AVAILABLE, answers

if TYPE_CHECKING:
    from reviewpoint_db.database import Database
    from reviewpoint_db.server_view import Blocking as Found
    from reviewpoint_db.server_view import ServerView
    from reviewpoint_db.siblings import Answer

__all__ = ("live_figures", "serving")

#: Seconds for all other workers together.
_SIBLINGS: Final = 0.5
#: Seconds after which a statement may be waiting for a lock.
_LONG: Final = 0.3
#: Settings that hold code, not values.
_NOT_SHOWN: Final = frozenset(
    {"url", "password", "pool", "session_class", "engine_options", "read_your_writes_secret"}
)


@asynccontextmanager
async def serving(database: Database) -> AsyncIterator[None]:
    """Have a process take part in the live page for as long as the block runs.

    Args:
        database: One whose guarded routes exist; nobody may ask for the others.
    """
    async with database.live.serving(partial(encoded, database)):
        yield


async def live_figures(database: Database) -> Reply:
    """Answer `GET /debug/live`.

    Args:
        database: The database; what its other workers on this host say is added up.
    """
    answers, health = await asyncio.gather(
        database.live.ask_others(_SIBLINGS), database.live.health()
    )
    seen = database.activity.holders(stacks=True)  # once: the loop waits meanwhile
    own = worker_report(database, seen)
    others = [_decoded(answer) for answer in answers]
    workers = [own, *(_as_known(other, database) for other in others if other is not None)]
    silent = [answer.pid for answer, other in zip(answers, others, strict=True) if other is None]
    holders = sorted(
        (holder for worker in workers for holder in worker.holders),
        key=lambda holder: -holder.held,
    )
    look = own.outage is None and _worth_a_look(holders)
    view = await database.live.server(seen) if look else None
    named = [_blocking(each, view, holders) for each in view.blockings] if view else []
    hosts = all_hosts(workers)
    gauges = sum((worker.gauges for worker in workers), Gauges())
    told = headline(
        workers,
        named,
        silent=silent,
        hosts=hosts,
        leak_threshold=database.config.leak_threshold,
        idle_threshold=database.config.idle_in_transaction_threshold,
        health=health,
        server_error=view.error if view else None,
        address=address_of(database.config),
    )
    blamed = _blamed(told.text, holders)
    content: dict[str, Any] = {
        "name": database.name,
        "environment": database.config.effective_environment,
        "at": time.time(),
        "pid": own.pid,
        "interval": INTERVAL,
        "headline": told,
        "gauges": gauges,
        "workers": all_workers(workers, silent),
        "workers_note": _note(database, len(workers), silent) + _between(database),
        "holders": _rows(holders, blamed),
        "holders_total": gauges.out,
        "blamed": [each.id for each in blamed],
        "routes": _routes(workers),
        "waiters": all_waiters(workers),
        "blockings": named,
        "server_error": view.error if view else None,
        "history": merged(worker.history for worker in workers),
        "statements": slowest_statements(workers),
        "notices": latest_notices(each for worker in workers for each in worker.notices),
        "hosts": hosts,
        "configuration": _configuration(database),
    }
    return json_reply(200, content)


def _blamed(text: str, holders: list[HolderReport]) -> list[HolderReport]:
    """Return the oldest of each route that the headline names."""
    oldest: dict[str, HolderReport] = {}
    for each in holders:
        oldest.setdefault(each.route, each)
    # As a word of its own: `GET /` is no part of `GET /papers`.
    named = (
        each
        for route, each in oldest.items()
        if re.search(rf"(?<!\S){re.escape(route)}(?![^\s,;.:])", text)
    )
    return [*named][:MOST_BLAMED]


def _rows(holders: list[HolderReport], blamed: list[HolderReport]) -> list[HolderReport]:
    """Return the oldest, with those whom the headline blames, however late they came."""
    others = [each for each in holders if each not in blamed]
    rows = [*blamed, *others[: MOST_HOLDERS - len(blamed)]]
    return sorted(rows, key=lambda holder: -holder.held)


def _routes(workers: list[WorkerReport]) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for worker in workers:
        counts.update(worker.routes)
    return [{"route": route, "count": count} for route, count in counts.most_common(MOST_ROUTES)]


def _decoded(answer: Answer) -> WorkerReport | None:
    if answer.body is None:
        return None
    try:
        return msgspec.json.decode(answer.body, type=WorkerReport)
    except msgspec.MsgspecError:
        return None  # a worker of another version, while a new one is rolled out


def _as_known(other: WorkerReport, database: Database) -> WorkerReport:
    """Leave out an outage of which another worker has not heard yet that it is over."""
    last = database.last_health
    healthy = last.report is not None and last.report.checks[0].status == "healthy"
    if other.outage_ago is None or not healthy or other.outage_ago <= last.age:
        return other
    return msgspec.structs.replace(other, outage=None, outage_for=None, outage_ago=None)


def _note(database: Database, answered: int, silent: list[int]) -> str:
    """Say whom the figures are of."""
    live = database.live
    if live.alone_because is not None:
        return f"This worker alone: the others cannot be asked ({live.alone_because})."
    if silent:
        names = ", ".join(map(str, silent))
        return f"{answered} of {answered + len(silent)} workers of this host answered; silent: {names}."
    if answered == 1:
        return "This is the only worker on this host that uses the database."
    return f"All {answered} workers of this host answered: the figures are their sum."


def _between(database: Database) -> str:
    engine = database.existing_engine
    return f" {NOT_AVAILABLE}" if engine is not None and answers(engine) else ""


def _configuration(database: Database) -> dict[str, Any]:
    """The settings as they take effect; never the password, nor what it may be made of."""
    config = database.config
    pool = msgspec.structs.asdict(config.effective_pool)
    settings = {
        name: getattr(config, name) for name in config.__struct_fields__ if name not in _NOT_SHOWN
    }
    return {
        "url": config.safe_url,
        **settings,
        "read_url": config.safe_read_url,
        "environment": config.effective_environment,
        **{f"pool.{name}": value for name, value in pool.items()},
    }


def _worth_a_look(holders: Iterable[HolderReport]) -> bool:
    """Whether a statement runs for so long that it may wait for a lock; else the server is left alone."""
    return any(each.state == "active" and each.state_for > _LONG for each in holders)


def _blocking(found: Found, view: ServerView, holders: Iterable[HolderReport]) -> Blocking:
    """Name the two sides of a wait by the requests that have these connections, in any worker."""
    ours = {each.backend_pid: each for each in holders if each.backend_pid is not None}
    theirs = {each.pid: each for each in view.connections}
    waiting, blocking = ours.get(found.waiting_pid), ours.get(found.blocking_pid)
    return Blocking(
        waiting_pid=found.waiting_pid,
        blocking_pid=found.blocking_pid,
        waiting=waiting.route if waiting else route_of(found.waiting),
        blocking=blocking.route if blocking else route_of(found.blocking),
        seconds=found.seconds,
        place=blocking.place if blocking else found.where,
        waiting_statement=theirs[found.waiting_pid].statement,
        blocking_statement=theirs[found.blocking_pid].statement,
        blocking_state=theirs[found.blocking_pid].state,
    )
