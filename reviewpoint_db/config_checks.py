"""What a configuration is refused for, each with a message that names the setting and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, get_args

from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.pool_config import PoolConfig
from reviewpoint_db.settings import check_number, refuse

if TYPE_CHECKING:
    from reviewpoint_db.config import DatabaseConfig
    from reviewpoint_db.target import Target

__all__ = ["Environment", "check", "unknown_option"]

Environment = Literal["dev", "test", "prod"]

#: Characters of the secret that signs what a client brings back.
_SHORTEST_SECRET: Final = 16

# These have a place of their own, or would undo a promise of this package.
_OWNED_OPTIONS: Final = {
    "pool_size": "pool=PoolConfig(size=...)",
    "max_overflow": "pool=PoolConfig(max_overflow=...)",
    "pool_timeout": "pool=PoolConfig(timeout=...)",
    "pool_recycle": "pool=PoolConfig(max_lifetime=...)",
    "pool_reset_on_return": "pool=PoolConfig(reset_on_return=...)",
    "pool_pre_ping": "pool=PoolConfig(ping_after_idle=...)",
    "hide_parameters": "nothing: values are never shown",
}
#: The others of SQLAlchemy's, to recognize a misspelled one: its dialects may know more.
_OPTIONS: Final = (
    "connect_args",
    "creator",
    "echo",
    "echo_pool",
    "enable_from_linting",
    "execution_options",
    "future",
    "implicit_returning",
    "insertmanyvalues_page_size",
    "isolation_level",
    "json_deserializer",
    "json_serializer",
    "label_length",
    "logging_name",
    "max_identifier_length",
    "module",
    "native_datetime",
    "native_inet_types",
    "paramstyle",
    "plugins",
    "pool",
    "pool_logging_name",
    "pool_use_lifo",
    "poolclass",
    "query_cache_size",
    "server_side_cursors",
    "skip_autocommit_rollback",
    "use_insertmanyvalues",
)
#: Where SQLAlchemy's options are described.
_OPTIONS_PAGE: Final = "https://docs.sqlalchemy.org/en/20/core/engines.html"


def check(config: DatabaseConfig, read: Target | None) -> None:
    """Refuse what cannot be right.

    Args:
        config: As it was given.
        read: What its `read_url` was understood as.

    Raises:
        ConfigurationError: The message names the setting, its value and the fix.
    """
    _check_names(config)
    _check_numbers(config)
    _check_types(config)
    _check_pool(config)
    _check_replicas(config, read)
    _check_pgbouncer(config)
    _check_password(config)


def _check_numbers(config: DatabaseConfig) -> None:
    for field in ("connect_timeout", "query_timeout", "health_timeout", "leak_threshold"):
        check_number(field, getattr(config, field), lowest=1)
    for field in ("idle_in_transaction_threshold", "slow_statement", "retry_after"):
        check_number(field, getattr(config, field), lowest=0)
    check_number("expected_processes", config.expected_processes, lowest=1, whole=True)
    check_number("max_replica_lag", config.max_replica_lag, lowest=1)
    check_number("read_your_writes_wait", config.read_your_writes_wait, lowest=0)


def _check_names(config: DatabaseConfig) -> None:
    environments = get_args(Environment)
    if config.environment is not None and config.environment not in environments:
        raise refuse(
            "environment",
            repr(config.environment),
            "unknown",
            f"use one of {', '.join(environments)}",
        )
    name: object = config.name
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}", name):
        raise refuse("name", repr(name), "not a name", "use letters, digits, _ - and .")


def _check_types(config: DatabaseConfig) -> None:
    pool: object = config.pool
    if pool is not None and not isinstance(pool, PoolConfig):
        raise refuse("pool", f"a {type(pool).__name__}", "not a PoolConfig", "give PoolConfig(...)")
    session_class: object = config.session_class
    if session_class is not None and not (
        isinstance(session_class, type) and issubclass(session_class, AsyncSession)
    ):
        raise refuse(
            "session_class",
            repr(session_class),
            "not a class of sessions",
            "give a subclass of sqlalchemy.ext.asyncio.AsyncSession",
        )
    options: object = config.engine_options
    if not isinstance(options, Mapping):
        raise refuse(
            "engine_options", f"a {type(options).__name__}", "not a mapping", "give a dict"
        )
    for option in options:
        _check_option(option)


def _check_option(option: object) -> None:
    if option in _OPTIONS:
        return
    if option in _OWNED_OPTIONS:
        raise refuse("engine_options", option, "set elsewhere", f"use {_OWNED_OPTIONS[option]}")
    near = difflib.get_close_matches(str(option), [*_OPTIONS, *_OWNED_OPTIONS], n=1, cutoff=0.8)
    if near:
        raise unknown_option(repr(option), f"did you mean {_OWNED_OPTIONS.get(near[0], near[0])}?")


def unknown_option(shown: str, question: str = "") -> ConfigurationError:
    """The error for what `create_async_engine` does not know.

    Args:
        shown: The names.
        question: What may have been meant.
    """
    fix = f"{question} See {_OPTIONS_PAGE}" if question else f"see {_OPTIONS_PAGE}"
    return refuse("engine_options", shown, "SQLAlchemy has no such option", fix)


def _check_pool(config: DatabaseConfig) -> None:
    if config.url is None and config.environment == "prod":
        raise refuse(
            "url",
            None,
            "production needs a database of its own",
            "set REVIEWPOINT_DB_URL=postgresql://user:password@host/database",
        )
    if config.in_memory and config.pool is not None and config.pool.sized:
        raise refuse(
            "pool.size",
            config.pool.size,
            f"{config.safe_url} is in memory and has no connections to limit",
            "leave out pool.size and pool.max_overflow, or use a file",
        )


def _check_replicas(config: DatabaseConfig, read: Target | None) -> None:
    if read is not None and (read.backend != config.backend or config.backend == "sqlite"):
        raise refuse(
            "read_url",
            read.shown,
            f"not a replica of {config.safe_url}",
            "give a replica's URL, of PostgreSQL both",
        )
    if read is not None and (read.is_cockroachdb or config.is_cockroachdb):
        raise refuse(
            "read_url",
            read.shown,
            "CockroachDB has no replicas of this kind",
            "leave it out, and read followers by AS OF SYSTEM TIME",
        )
    if not config.read_your_writes:
        return
    if read is None:
        raise refuse(
            "read_your_writes",
            config.read_your_writes,
            "without read_url the primary serves all reads, so there is nothing to wait for",
            "give read_url, or leave it out",
        )
    secret: object = config.read_your_writes_secret
    if not isinstance(secret, str) or len(secret) < _SHORTEST_SECRET:
        raise refuse(
            "read_your_writes_secret",
            "***" if secret else None,
            "read_your_writes needs a secret that nobody can guess",
            f"give at least {_SHORTEST_SECRET} random characters, the same to all processes",
        )


def _check_pgbouncer(config: DatabaseConfig) -> None:
    declared: object = config.pgbouncer
    if declared is not None and not isinstance(declared, bool):
        raise refuse("pgbouncer", repr(declared), "not a switch", "give true, false or neither")
    if declared and config.backend != "postgresql":
        raise refuse("pgbouncer", declared, "SQLite has no PgBouncer", "leave it out")


def _check_password(config: DatabaseConfig) -> None:
    password: object = config.password
    if password is None:
        return
    if not callable(password):
        raise refuse("password", "***", "not callable", "give a function, or use the URL")
    if config.backend != "postgresql":
        raise refuse("password", "a callable", "SQLite has no passwords", "leave it out")
    if config.sqlalchemy_url.password is not None:
        raise refuse(
            "password", "a callable", f"{config.safe_url} has one too", "take one of them out"
        )
