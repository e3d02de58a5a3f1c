"""What a database is configured with, checked when it is made."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec.structs import force_setattr
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db.passwords import Password, PasswordSource, password_of_file
from reviewpoint_db.pool_config import ByEnvironment, PoolConfig
from reviewpoint_db.settings import check_number, read_variables, refuse
from reviewpoint_db.target import Backend, Target, is_loopback, normalize_url, understand
from reviewpoint_db.urls import MASK

__all__ = ["DatabaseConfig", "Environment", "PoolConfig", "normalize_url"]

Environment = Literal["dev", "test", "prod"]

#: Characters of the secret that signs what a client brings back.
_SHORTEST_SECRET: Final = 16

DEFAULT_URL = "sqlite+aiosqlite:///./reviewpoint.sqlite3"

# These have a place of their own, or would undo a promise of this package.
_OWNED_OPTIONS = {
    "pool_size": "pool=PoolConfig(size=...)",
    "max_overflow": "pool=PoolConfig(max_overflow=...)",
    "pool_timeout": "pool=PoolConfig(timeout=...)",
    "pool_recycle": "pool=PoolConfig(max_lifetime=...)",
    "pool_reset_on_return": "pool=PoolConfig(reset_on_return=...)",
    "pool_pre_ping": "pool=PoolConfig(ping_after_idle=...)",
    "hide_parameters": "nothing: values are never shown",
}

# The original module's table: production 10+20, development 5+10, parallel tests 1+1.
_POOL_SIZES: dict[Environment, tuple[int, int]] = {
    "dev": (5, 10),
    "test": (5, 10),
    "prod": (10, 20),
}
# A host that vanishes says no goodbye: its transactions, and their locks, end after 30 + 3 x 10 s
# instead of the server's default of two hours. Over a Unix socket they have no effect. PgBouncer
# refuses them: pgbouncer.py leaves out what begins with tcp_.
_KEEPALIVES = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# PgBouncer holds the queue of what waits for the server: more of ours would only wait there.
_BEHIND_PGBOUNCER = (5, 5)


class DatabaseConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True
):
    """One database: where it is, how it is used, and its limits; times in seconds.

    Nothing is read from the environment here: `DatabaseConfig.from_env()` does that.

    Args:
        url: PostgreSQL or SQLite. None: `./reviewpoint.sqlite3`, refused in prod.
        environment: "dev", "test" or "prod". None: dev where the host is loopback or SQLite, else
            prod.
        name: Distinguishes several databases of one application.
        pool: The pool's limits. None: by the environment.
        read_url: One or several replicas for read sessions, as one URL with several hosts.
        max_replica_lag: A replica that is further behind the primary gets no reads.
        read_your_writes: Have the reads of a client that has just written see that; it carries a
            signed cookie from the one request to the other.
        read_your_writes_secret: Signs that cookie; the same in all processes.
        read_your_writes_wait: How long such a read waits for its replica before it uses the primary.
        password: A function or coroutine function, called for every new connection, for rotating
            tokens; PostgreSQL only.
        pgbouncer: Whether PgBouncer is in between, in transaction mode. None: noticed at the login;
            True makes the pool 5+5 by default too.
        connect_timeout: Limit of one attempt to connect; the URL's connect_timeout wins.
        query_timeout: Limit of one statement.
        health_timeout: Limit of one health check.
        leak_threshold: A session open for longer is reported.
        idle_in_transaction_threshold: A transaction idle for longer is reported.
        slow_statement: A statement that takes longer is reported.
        retry_after: The Retry-After of a 503.
        session_class: The class of the sessions.
        engine_options: Given to SQLAlchemy's `create_async_engine` as they are.
        expected_processes: Worker processes that share the server, to check the pools against its
            `max_connections`.
        observe: Time statements and watch for what lasts too long. False is for measuring what
            that costs.

    Raises:
        ConfigurationError: A setting is refused; the message names it and the fix.

    Example:
        >>> config = DatabaseConfig(url="postgresql://ann:secret@localhost/papers")
        >>> config.safe_url
        'postgresql://ann:***@localhost/papers'
        >>> config.effective_pool.size
        5
    """

    url: str | None = None
    environment: Environment | None = None
    name: str = "default"
    pool: PoolConfig | None = None
    read_url: str | None = None
    max_replica_lag: float = 5.0
    read_your_writes: bool = False
    read_your_writes_secret: str | None = None
    read_your_writes_wait: float = 0.2
    password: PasswordSource | None = None
    pgbouncer: bool | None = None
    connect_timeout: float = 5.0
    query_timeout: float = 30.0
    health_timeout: float = 2.0
    leak_threshold: float = 30.0
    idle_in_transaction_threshold: float = 5.0
    slow_statement: float = 0.5
    retry_after: float = 1.0
    session_class: type[AsyncSession] | None = None
    engine_options: Mapping[str, Any] = msgspec.field(default_factory=dict)
    expected_processes: int = 1
    observe: bool = True

    def __post_init__(self) -> None:
        self._check_names()
        for field in ("connect_timeout", "query_timeout", "health_timeout", "leak_threshold"):
            check_number(field, getattr(self, field), lowest=1)
        for field in ("idle_in_transaction_threshold", "slow_statement", "retry_after"):
            check_number(field, getattr(self, field), lowest=0)
        check_number("expected_processes", self.expected_processes, lowest=1, whole=True)
        check_number("max_replica_lag", self.max_replica_lag, lowest=1)
        check_number("read_your_writes_wait", self.read_your_writes_wait, lowest=0)
        self._check_types()
        self._check_pool()
        self._check_replicas()
        self._check_pgbouncer()
        self._check_password()
        force_setattr(self, "engine_options", dict(self.engine_options))
        force_setattr(
            self, "connect_timeout", self._target.arguments.get("timeout", self.connect_timeout)
        )

    def _check_names(self) -> None:
        environments = get_args(Environment)
        if self.environment is not None and self.environment not in environments:
            raise refuse(
                "environment",
                repr(self.environment),
                "unknown",
                f"use one of {', '.join(environments)}",
            )
        name: object = self.name
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}", name):
            raise refuse("name", repr(name), "not a name", "use letters, digits, _ - and .")

    def _check_types(self) -> None:
        pool: object = self.pool
        if pool is not None and not isinstance(pool, PoolConfig):
            raise refuse(
                "pool", f"a {type(pool).__name__}", "not a PoolConfig", "give PoolConfig(...)"
            )
        session_class: object = self.session_class
        if session_class is not None and not (
            isinstance(session_class, type) and issubclass(session_class, AsyncSession)
        ):
            raise refuse(
                "session_class",
                repr(session_class),
                "not a class of sessions",
                "give a subclass of sqlalchemy.ext.asyncio.AsyncSession",
            )
        options: object = self.engine_options
        if not isinstance(options, Mapping):
            raise refuse(
                "engine_options", f"a {type(options).__name__}", "not a mapping", "give a dict"
            )
        for option, instead in _OWNED_OPTIONS.items():
            if option in options:
                raise refuse("engine_options", option, "set elsewhere", f"use {instead}")

    def _check_pool(self) -> None:
        if self.url is None and self.environment == "prod":
            raise refuse(
                "url",
                None,
                "production needs a database of its own",
                "set REVIEWPOINT_DB_URL=postgresql://user:password@host/database",
            )
        if self.in_memory and self.pool is not None and self.pool.sized:
            raise refuse(
                "pool.size",
                self.pool.size,
                f"{self.safe_url} is in memory and has no connections to limit",
                "leave out pool.size and pool.max_overflow, or use a file",
            )

    def _check_replicas(self) -> None:
        read = self._read_target
        if read is not None and (read.backend != self.backend or self.backend == "sqlite"):
            raise refuse(
                "read_url",
                read.shown,
                f"not a replica of {self.safe_url}",
                "give a replica's URL, of PostgreSQL both",
            )
        if read is not None and (read.is_cockroachdb or self.is_cockroachdb):
            raise refuse(
                "read_url",
                read.shown,
                "CockroachDB has no replicas of this kind",
                "leave it out, and read followers by AS OF SYSTEM TIME",
            )
        if not self.read_your_writes:
            return
        secret: object = self.read_your_writes_secret
        if not isinstance(secret, str) or len(secret) < _SHORTEST_SECRET:
            raise refuse(
                "read_your_writes_secret",
                "***" if secret else None,
                "read_your_writes needs a secret that nobody can guess",
                f"give at least {_SHORTEST_SECRET} random characters, the same to all processes",
            )

    def _check_pgbouncer(self) -> None:
        declared: object = self.pgbouncer
        if declared is not None and not isinstance(declared, bool):
            raise refuse("pgbouncer", repr(declared), "not a switch", "give true, false or neither")
        if declared and self.backend != "postgresql":
            raise refuse("pgbouncer", declared, "SQLite has no PgBouncer", "leave it out")

    def _check_password(self) -> None:
        password: object = self.password
        if password is None:
            return
        if not callable(password):
            raise refuse("password", "***", "not callable", "give a function, or use the URL")
        if self.backend != "postgresql":
            raise refuse("password", "a callable", "SQLite has no passwords", "leave it out")
        if self.sqlalchemy_url.password is not None:
            raise refuse(
                "password", "a callable", f"{self.safe_url} has one too", "take one of them out"
            )

    @cached_property
    def _target(self) -> Target:
        return understand("url", DEFAULT_URL if self.url is None else self.url)

    @cached_property
    def _read_target(self) -> Target | None:
        return None if self.read_url is None else understand("read_url", self.read_url)

    @property
    def sqlalchemy_url(self) -> URL:
        """The URL for SQLAlchemy, with its password; libpq's parameters are in `connect_args()`."""
        return self._target.url

    @property
    def read_sqlalchemy_url(self) -> URL | None:
        """The replica's URL for SQLAlchemy, with its password."""
        return None if self._read_target is None else self._read_target.url

    @property
    def safe_url(self) -> str:
        """The URL as it may be shown."""
        return self._target.shown

    @property
    def safe_read_url(self) -> str | None:
        """The replica's URL as it may be shown."""
        return None if self._read_target is None else self._read_target.shown

    @property
    def hosts(self) -> tuple[tuple[str, int | None], ...]:
        """The hosts of `url`, each with its port; empty for SQLite and the driver's own default."""
        return self._target.hosts

    @property
    def read_hosts(self) -> tuple[tuple[str, int | None], ...]:
        """The replicas, each with its port; an empty name is the driver's own default."""
        if self._read_target is None:
            return ()
        return self._read_target.hosts or (("", None),)

    @property
    def backend(self) -> Backend:
        """Which database it is."""
        return self._target.backend

    @property
    def is_cockroachdb(self) -> bool:
        """Whether it is CockroachDB, by its own dialect; its backend is "postgresql"."""
        return self._target.is_cockroachdb

    @property
    def in_memory(self) -> bool:
        """Whether it is a SQLite database without a file."""
        return self._target.in_memory

    @property
    def effective_environment(self) -> Environment:
        """The environment; when it is not set, dev on this machine and prod elsewhere."""
        if self.environment is not None:
            return self.environment
        return "dev" if self._remote_host is None else "prod"

    @property
    def _remote_host(self) -> str | None:
        """The first host that is not this machine."""
        if self.backend == "sqlite":
            return None
        targets = [self._target, *filter(None, [self._read_target])]
        for target in targets:
            # asyncpg asks PGHOST when the URL names no host.
            default = ((os.environ.get("PGHOST", ""), None),)
            for host, _ in target.hosts or default:
                if not is_loopback(host):
                    return host
        return None

    @property
    def debug_allowed(self) -> bool:
        """Whether pages with details may be open to everybody."""
        return self.debug_closed_reason is None

    @property
    def debug_closed_reason(self) -> str | None:
        """Why `debug_allowed` is false, and what to do."""
        if self.environment == "prod":
            return "the environment is prod"
        if self.environment is None and self._remote_host is not None:
            return (
                f"the environment is not set and {self._remote_host} is not this machine; "
                "set REVIEWPOINT_ENVIRONMENT to dev, test or prod"
            )
        return None

    @property
    def effective_pool(self) -> PoolConfig:
        """The pool's limits: what was given, else 1+1 under xdist, else by the environment."""
        pool = PoolConfig() if self.pool is None else self.pool
        reset = pool.reset_on_return
        size, overflow = _POOL_SIZES[self.effective_environment]
        if self.pgbouncer:
            size, overflow = _BEHIND_PGBOUNCER
        if self.backend == "postgresql" and not pool.sized and _xdist_worker():
            size, overflow, reset = 1, 1, "commit"
        return msgspec.structs.replace(
            pool,
            size=size if isinstance(pool.size, ByEnvironment) else pool.size,
            max_overflow=(
                overflow if isinstance(pool.max_overflow, ByEnvironment) else pool.max_overflow
            ),
            reset_on_return=reset,
        )

    def connect_args(self, *, read: bool = False) -> dict[str, Any]:
        """The arguments for the driver, to give to SQLAlchemy as `connect_args`.

        Args:
            read: For the replica.
        """
        target = self._target if not read or self._read_target is None else self._read_target
        if target.backend == "sqlite":
            # The wait for another connection's lock is a part of acquiring.
            timeout = target.url.query.get("timeout", self.effective_pool.timeout)
            return {"check_same_thread": False, "timeout": float(str(timeout))}
        arguments: dict[str, Any] = {
            "timeout": self.connect_timeout,
            "command_timeout": self.query_timeout,
            # Of several hosts the one that may be written to, unless the URL says otherwise.
            **({"target_session_attrs": "read-write"} if self._has_several(target) else {}),
            **target.arguments,
            "server_settings": {
                "application_name": self._application_name(),
                **(_KEEPALIVES if self.pgbouncer is None else {}),  # else it is in between
                **target.arguments.get("server_settings", {}),
            },
        }
        if (source := self._password_source(read=read)) is not None:
            arguments["password"] = Password(source, self.connect_timeout)
        return arguments

    def _password_source(self, *, read: bool = False) -> PasswordSource | None:
        """What is asked for the password at each connect; None for a fixed one."""
        if self.password is not None:
            return self.password
        url, target = self.url, self._target
        if read and self._read_target is not None:
            url, target = self.read_url, self._read_target
        return None if target.url.password is None else password_of_file(url)

    @property
    def password_rotates(self) -> bool:
        """Whether the password is asked for at each connect, so that a wrong one may pass."""
        return self._password_source() is not None

    def _has_several(self, target: Target) -> bool:
        return target is self._target and len(target.hosts) > 1

    def _application_name(self) -> str:
        pid = os.getpid()
        if worker := _xdist_worker():
            return f"reviewpoint_test_{worker}_{pid}"
        # PostgreSQL keeps 63 bytes; the process id at the end is what tells workers apart.
        end = f":{pid}"
        host = socket.gethostname().encode("ascii", "replace").decode()
        return f"{self.name}@{host}"[: 63 - len(end)] + end

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> DatabaseConfig:
        """Read the configuration from environment variables.

        Args:
            environ: Instead of `os.environ`.

        Raises:
            ConfigurationError: A variable is refused; the message names it and the fix.
        """
        return cls(**read_variables(os.environ if environ is None else environ, cls, PoolConfig))

    def __repr__(self) -> str:
        return f"DatabaseConfig({', '.join(f'{name}={value}' for name, value in self._shown())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec's own would show the fields as they are.
        return list(self._shown())

    def _shown(self) -> Iterator[tuple[str, object]]:
        """The fields that were given, without their secrets."""
        safe: dict[str, object] = {
            "url": repr(self.safe_url),
            "read_url": repr(self.safe_read_url),
            "password": MASK,
            "read_your_writes_secret": MASK,
            # Its values may be anything: connect arguments, creators.
            "engine_options": sorted(self.engine_options),
        }
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.name == "url" or value not in (field.default, {}):
                yield field.name, safe.get(field.name, repr(value))


def _xdist_worker() -> str | None:
    return os.environ.get("PYTEST_XDIST_WORKER") or None
