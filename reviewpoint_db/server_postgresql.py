"""PostgreSQL's own view: `pg_stat_activity`, waits, locks and who blocks whom."""

from __future__ import annotations

from typing import Any, Final

from reviewpoint_db.server_rows import ServerConnection
from reviewpoint_db.statements import shape_of

__all__ = ["NOT_IN_COCKROACHDB", "cockroachdb_figures_of", "connections_of", "figures_of"]

#: What the pages say of CockroachDB, where pg_stat_activity and pg_locks are empty.
NOT_IN_COCKROACHDB: Final = (
    "CockroachDB does not tell which request holds which connection, nor who blocks whom: its own "
    "console does."
)

# `pg_blocking_pids` takes the lock manager's locks for a moment: only those that wait for a lock ask.
_CONNECTIONS: Final = """
with own as (
  select a.pid, case when a.wait_event_type = 'Lock' then pg_blocking_pids(a.pid) else '{}' end as blocked_by
  from pg_stat_activity a
  where a.datname = current_database() and starts_with(a.application_name, $1)
    and a.pid <> pg_backend_pid()
)
select a.pid, coalesce(a.application_name, '') as application,
  starts_with(a.application_name, $1) as own, a.state,
  extract(epoch from clock_timestamp() - a.state_change)::float8 as state_for,
  extract(epoch from clock_timestamp() - a.xact_start)::float8 as transaction_for,
  a.wait_event_type, a.wait_event, a.query, coalesce(own.blocked_by, '{}') as blocked_by,
  (select format('%s on %s', l.mode, coalesce(l.relation::regclass::text, l.locktype))
   from pg_locks l where l.pid = a.pid and not l.granted limit 1) as lock
from pg_stat_activity a left join own on own.pid = a.pid
where own.pid is not null
   or a.pid in (select unnest(blocked_by) from own)
order by a.xact_start nulls last, a.pid
limit 500
"""

_FIGURES: Final = """
select current_setting('server_version') as version,
  current_setting('max_connections')::int as max_connections,
  current_setting('superuser_reserved_connections')::int as reserved_connections,
  (select count(*) from pg_stat_activity where backend_type = 'client backend') as connections,
  pg_is_in_recovery() as replica,
  pg_database_size(current_database()) as size
"""


async def figures_of(driver: Any) -> dict[str, Any]:
    """Ask for the server's version and limits.

    Args:
        driver: A connection of asyncpg.
    """
    return dict(await driver.fetchrow(_FIGURES))


async def cockroachdb_figures_of(driver: Any) -> dict[str, Any]:
    """Ask CockroachDB for its version.

    Args:
        driver: A connection of asyncpg.
    """
    return {"version": await driver.fetchval("select version()")}


async def connections_of(driver: Any, application: str) -> list[ServerConnection]:
    """Ask for the connections of an application, and of whoever blocks them.

    Args:
        driver: A connection of asyncpg.
        application: What their `application_name` begins with.
    """
    rows = await driver.fetch(_CONNECTIONS, application)
    return [_connection(row) for row in rows]


def _connection(row: Any) -> ServerConnection:
    waits = None
    # An idle one waits for its client, which is no news.
    if row["state"] == "active" and row["wait_event_type"] is not None:
        waits = f"{row['wait_event_type']}: {row['wait_event']}"
    return ServerConnection(
        pid=row["pid"],
        application=row["application"],
        own=bool(row["own"]),
        state=row["state"],
        state_for=row["state_for"],
        transaction_for=row["transaction_for"],
        waits_for=waits,
        lock=row["lock"],
        statement=shape_of(row["query"]) if row["query"] else None,
        blocked_by=tuple(row["blocked_by"]),
    )
