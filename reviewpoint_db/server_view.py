"""What the server knows of this application's connections, joined with what we know of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from reviewpoint_db.context import current_origin
from reviewpoint_db.engine import connect_args_of
from reviewpoint_db.holder import HolderSnapshot
from reviewpoint_db.pgbouncer import NOT_AVAILABLE, answers
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.server_postgresql import (
    NOT_IN_COCKROACHDB,
    cockroachdb_figures_of,
    connections_of,
    figures_of,
)
from reviewpoint_db.server_rows import Blocking, ServerConnection
from reviewpoint_db.server_sqlite import look_at_file
from reviewpoint_db.unpooled import idle_or_unpooled

if TYPE_CHECKING:
    from reviewpoint_db.config import DatabaseConfig
    from reviewpoint_db.database import Database

__all__ = [
    "Blocking",
    "ServerConnection",
    "ServerView",
    "application_prefix",
    "look_at_server",
]


class ServerView(msgspec.Struct, frozen=True, kw_only=True):
    """The server's side at one moment.

    Args:
        backend: "postgresql" or "sqlite".
        error: Why there is nothing else, safe to show.
        note: What is not available, and why.
        figures: The server's version and limits; of SQLite the file's sizes and pragmas.
        connections: Those of this application's processes, and whoever blocks them.
        blockings: Who waits for whom.
    """

    backend: str
    error: str | None = None
    note: str | None = None
    figures: dict[str, Any] = {}
    connections: tuple[ServerConnection, ...] = ()
    blockings: tuple[Blocking, ...] = ()


async def look_at_server(
    database: Database, holders: tuple[HolderSnapshot, ...] | None = None
) -> ServerView:
    """Ask the server, within `health_timeout` seconds and around a pool that is full.

    Args:
        database: Whose connections are looked for, by their `application_name`.
        holders: Who holds its connections in this process, as somebody has just seen it.

    Returns:
        The view; one with an error when the server did not answer. Never raises.
    """
    config = database.config
    before = current_origin.get()
    current_origin.set("look at the server")
    note = None
    try:
        if holders is None:
            holders = database.activity.holders(stacks=True)
        async with (
            asyncio.timeout(config.health_timeout),
            idle_or_unpooled(database.engine, config, timeout=config.health_timeout) as driver,
        ):
            if config.backend == "sqlite":
                figures, connections = await look_at_file(driver, config, holders)
            elif config.is_cockroachdb:
                note, connections = NOT_IN_COCKROACHDB, []
                figures = await cockroachdb_figures_of(driver)
            else:
                note = NOT_AVAILABLE if answers(database.engine) else None
                figures = await figures_of(driver)
                connections = await connections_of(driver, application_prefix(config))
                # Those too who came while this one connected; of the others the earlier look
                # counts, since it is the one before whoever blocks has gone on.
                holders = database.activity.with_newer(holders)
    except Exception as error:  # noqa: BLE001 - a view reports, it never raises
        return ServerView(backend=config.backend, error=safe_error(error))
    finally:
        current_origin.set(before)
    joined = _joined(connections, holders)
    return ServerView(
        backend=config.backend,
        note=note,
        figures=figures,
        connections=joined,
        blockings=tuple(_blockings(joined)),
    )


def application_prefix(config: DatabaseConfig) -> str:
    """The beginning that the `application_name` of all processes of this application has."""
    name: str = connect_args_of(config)["server_settings"]["application_name"]
    database, at, _ = name.partition("@")
    return database + at if at else name.rstrip("0123456789")


def _joined(
    connections: list[ServerConnection], holders: tuple[HolderSnapshot, ...]
) -> tuple[ServerConnection, ...]:
    ours = {holder.pid: holder for holder in holders if holder.pid is not None}
    return tuple(
        msgspec.structs.replace(each, holder=ours[each.pid]) if each.pid in ours else each
        for each in connections
    )


def _blockings(connections: tuple[ServerConnection, ...]) -> list[Blocking]:
    by_pid = {each.pid: each for each in connections}
    return [
        Blocking.between(each, by_pid[pid])
        for each in connections
        for pid in each.blocked_by
        if pid in by_pid
    ]
