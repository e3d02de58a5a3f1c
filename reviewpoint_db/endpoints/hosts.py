"""The database's hosts as this process sees them: those of `url`, and the replicas of `read_url`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from reviewpoint_db.endpoints.report import HostReport, Role, duration
from reviewpoint_db.engine import elastic_pool, host_notes
from reviewpoint_db.gauges import read_gauges
from reviewpoint_db.hosts import Met
from reviewpoint_db.libpq import DEFAULT_PORT

if TYPE_CHECKING:
    from reviewpoint_db.config import DatabaseConfig
    from reviewpoint_db.database import Database
    from reviewpoint_db.gauges import PoolGauges
    from reviewpoint_db.replica import Replica

__all__ = ("address_of", "host_reports")

#: Seconds for which it counts what the last attempt at a host has met.
_FRESH: Final = 600.0
#: By `target_session_attrs`: what a host is that fits, and one that does not.
_ROLES: Final[dict[str, tuple[Role, Role]]] = {
    "read-write": ("primary", "replica"),
    "primary": ("primary", "replica"),
    "read-only": ("replica", "primary"),
    "standby": ("replica", "primary"),
}


def address_of(config: DatabaseConfig) -> str | None:
    """Return where the database is; None for SQLite, the driver's default and several hosts."""
    return _name(*config.hosts[0]) if len(config.hosts) == 1 else None


def host_reports(database: Database) -> tuple[HostReport, ...]:
    """Describe the hosts, the primary's first; none for a single host without replicas."""
    config = database.config
    replicas = database.replicas.hosts if database.replicas is not None else ()
    if config.backend == "sqlite" or not (replicas or len(config.hosts) > 1):
        return ()
    reads = [(each, read_gauges(each.engines.all())) for each in replicas]
    limit = config.max_replica_lag
    return (
        *_of_url(database, [gauges for _, gauges in reads]),
        *(_replica(each, gauges, limit) for each, gauges in reads),
    )


def _of_url(database: Database, reads: Iterable[PoolGauges]) -> list[HostReport]:
    """Those of `url`: what the pool has, and what the last connects have met."""
    reads, total = list(reads), database.gauges()
    out = total.out - sum(each.out for each in reads)
    opened = total.open - sum(each.open for each in reads)
    names = [_name(host, port) for host, port in database.config.hosts or (("", None),)]
    engine = database.existing_engine
    notes = host_notes(engine) if engine is not None else None
    if len(names) == 1:
        pool = elastic_pool(engine) if engine is not None else None
        outage = pool.outage() if pool is not None else None
        return [_only(names[0], out, opened, outage)]
    met: Mapping[str, Met] = notes.met if notes is not None else {}
    places: Counter[str] = notes.open() if notes is not None else Counter()
    wanted = str(database.config.connect_args().get("target_session_attrs"))
    roles = _ROLES.get(wanted, (None, None))
    return [_one_of_several(name, roles, met.get(name), places, out) for name in names]


def _only(name: str, out: int, opened: int, outage: str | None) -> HostReport:
    return HostReport(
        host=name,
        role="primary",
        alive=False if outage else True if opened else None,
        used=not outage,
        out=out,
        open=opened,
        note=f"accepts no connection: {outage}" if outage else "takes the sessions that may write",
    )


def _one_of_several(
    name: str, roles: tuple[Role, Role], met: Met | None, places: Counter[str], out: int
) -> HostReport:
    opened = places[name]
    ago = time.monotonic() - met.at if met is not None else _FRESH
    fresh = met if ago < _FRESH else None
    alive: bool | None = True if opened or fresh is not None else None
    role = roles[0] if alive else None
    note = "takes the connections" if opened else "not asked of late: no new connection was needed"
    if fresh is not None and fresh.unfit:
        role, note = roles[1], "stands by: it is not the kind of server that is asked for"
    elif fresh is not None and fresh.error is not None:
        alive, role, note = False, None, f"at the last attempt, {duration(ago)} ago: {fresh.error}"
    elif fresh is not None and not opened:
        note = f"took a connection {duration(ago)} ago"
    return HostReport(
        host=name,
        role=role,
        alive=alive,
        used=bool(opened),
        # The pool does not tell its connections apart by host.
        out=out if places.total() == opened else None if opened else 0,
        open=opened,
        note=note,
    )


def _replica(replica: Replica, gauges: PoolGauges, limit: float) -> HostReport:
    state = replica.state()
    if state.state == "unknown":
        alive, note = None, "not asked yet: the primary reads until it has answered"
    elif state.state == "dead":
        alive, note = False, f"gets no reads: {state.error}"
    elif state.state == "lagging":
        behind = "nobody knows how far" if state.lag is None else duration(state.lag)
        alive = True
        note = f"gets no reads: it is behind ({behind}; max_replica_lag is {limit:g} s)"
    elif state.role == "primary":
        alive, note = True, "is no replica any more, and read all the same: take it out of read_url"
    else:
        alive, note = True, "read sessions go there"
    return HostReport(
        host=state.host,
        role=state.role or "replica",
        alive=alive,
        watched=True,
        used=state.state == "reading",
        lag=state.lag,
        out=gauges.out,
        open=gauges.open,
        note=note,
    )


def _name(host: str, port: int | None) -> str:
    return f"{host or 'default'}:{port or DEFAULT_PORT}"
