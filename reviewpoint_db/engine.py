"""create_engine: an AsyncEngine with our pool, which translates its errors (`engine_errors.py`)."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any, Final

from loguru import logger
from sqlalchemy import URL, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from reviewpoint_db.activity import Activity
from reviewpoint_db.backend import READ_ONLY, REPLICA, WRITE_REFUSED, Backend
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.config_checks import unknown_option
from reviewpoint_db.engine_errors import translate_errors
from reviewpoint_db.errors import ReadOnlySessionError
from reviewpoint_db.hosts import HostNotes, connect_first
from reviewpoint_db.observe import observe
from reviewpoint_db.pool import ElasticPool
from reviewpoint_db.postgresql import CockroachDB, PostgreSQL
from reviewpoint_db.sqlite import SQLite

__all__ = [
    "adopt_engine",
    "backend_of",
    "connect_args_of",
    "create_engine",
    "elastic_pool",
    "host_notes",
]

#: Marks an adopted engine.
_ADOPTED: Final = "_reviewpoint_db_adopted"
#: Where an engine has its `HostNotes`.
_NOTES: Final = "_reviewpoint_db_host_notes"


def backend_of(config: DatabaseConfig) -> Backend:
    """Return the driver's answers for the configured database."""
    if config.backend == "sqlite":
        return SQLite()
    if config.is_cockroachdb:
        return CockroachDB(password_rotates=config.password_rotates, pgbouncer=config.pgbouncer)
    return PostgreSQL(password_rotates=config.password_rotates, pgbouncer=config.pgbouncer)


def connect_args_of(config: DatabaseConfig, *, read: bool = False) -> dict[str, Any]:
    """Return all of the driver's arguments; those of the application's `engine_options` win.

    So does each of its `server_settings` by itself: who names one keeps the others of ours.

    Args:
        config: The settings.
        read: For the replica.
    """
    own = config.connect_args(read=read)
    given = config.engine_options.get("connect_args", {})
    arguments = {**own, **given}
    if "server_settings" in own:
        arguments["server_settings"] = {
            **own["server_settings"],
            **(given.get("server_settings") or {}),
        }
    hosts = arguments.get("host", ())
    if not read and len(hosts) > 1 and not isinstance(hosts, str):
        arguments.setdefault("async_creator_fn", connect_first)
    return arguments


def elastic_pool(engine: AsyncEngine) -> ElasticPool | None:
    """Return the engine's present pool, or None when `engine_options` brought another class.

    Ask each time: `dispose()` replaces the pool.
    """
    pool = engine.sync_engine.pool
    return pool if isinstance(pool, ElasticPool) else None


def host_notes(engine: AsyncEngine) -> HostNotes | None:
    """Return what the engine's connects have met at the hosts of its URL; None for a foreign one."""
    notes: HostNotes | None = vars(engine.sync_engine).get(_NOTES)
    return notes


def create_engine(
    config: DatabaseConfig,
    activity: Activity,
    *,
    url: URL | None = None,
    connect_args: dict[str, Any] | None = None,
) -> AsyncEngine:
    """Create an engine for one event loop. Nothing connects before it is used.

    Args:
        config: The settings.
        activity: Where the pool records what it does.
        url: Another address than the configured one: the file behind `:memory:`, a replica.
        connect_args: All of the driver's arguments, in place of those that are configured.
    """
    started = time.perf_counter()
    backend = backend_of(config)
    options: dict[str, Any] = dict(config.engine_options)
    options["connect_args"] = connect_args or connect_args_of(config)
    notes = HostNotes()
    if options["connect_args"].get("async_creator_fn") is connect_first:
        options["connect_args"]["async_creator_fn"] = partial(connect_first, host_notes=notes)
    options.setdefault("hide_parameters", True)
    if "poolclass" not in options and "pool" not in options:
        options = {**_pool_options(config, backend, activity), **options}
    try:
        engine = create_async_engine(url or config.sqlalchemy_url, **options)
    except TypeError as error:
        if not str(error).startswith("Invalid argument(s)"):
            raise
        raise unknown_option(", ".join(re.findall(r"'(\w+)'", str(error)))) from error
    setattr(engine.sync_engine, _NOTES, notes)
    if connect_args is not None:
        setattr(engine.dialect, REPLICA, True)
    _attach(engine.sync_engine, backend, config)
    if config.observe:
        observe(engine.sync_engine, activity, config)
    backend.prepare_engine(engine)
    activity.engine_created()
    logger.info("Engine created successfully in {:.3f}s", time.perf_counter() - started)
    return engine


def adopt_engine(engine: AsyncEngine, config: DatabaseConfig) -> AsyncEngine:
    """Translate the errors of an engine that somebody else made; all else of it stays as it is.

    Args:
        engine: Any engine; doing it again changes nothing.
        config: The settings of the database that it belongs to.
    """
    made = engine.sync_engine
    if not vars(made).get(_ADOPTED):
        made.hide_parameters = True
        _attach(made, backend_of(config), config)
        setattr(made, _ADOPTED, True)
    return engine


def _pool_options(config: DatabaseConfig, backend: Backend, activity: Activity) -> dict[str, Any]:
    pool = config.effective_pool
    return {
        "poolclass": ElasticPool,
        "pool_size": pool.size,
        "max_overflow": pool.max_overflow,
        "pool_timeout": pool.timeout,
        "pool_recycle": pool.max_lifetime,
        "pool_reset_on_return": pool.reset_on_return,
        "idle_timeout": pool.idle_timeout,
        "ping_after_idle": pool.ping_after_idle,
        "connect_timeout": config.connect_timeout,
        "queue_target": pool.queue_target,
        "backend": backend,
        "activity": activity,
    }


def _attach(engine: Engine, backend: Backend, config: DatabaseConfig) -> None:
    """Have an engine's errors translated, and writes of read sessions refused."""
    translate_errors(engine, backend, config)
    for verb in ("do_execute", "do_executemany"):
        event.listen(engine, verb, _refuse_writes)


def _refuse_writes(_cursor: object, _statement: str, _parameters: object, context: Any) -> None:
    """Refuse what changes something on the connection of a read session."""
    if not context.execution_options.get(READ_ONLY):
        return
    parts = getattr(context.compiled, "ctes", None) or ()
    if (
        context.isinsert
        or context.isupdate
        or context.isdelete
        or context.isddl
        or any(part.element.is_dml for part in parts)
    ):
        raise ReadOnlySessionError(WRITE_REFUSED)
