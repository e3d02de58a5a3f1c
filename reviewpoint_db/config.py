"""What a database is configured with, checked when it is made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec
from msgspec.structs import force_setattr
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db.config_checks import Environment, check
from reviewpoint_db.connect_args import make_connect_args, xdist_worker
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.passwords import Password, PasswordSource, password_of_file
from reviewpoint_db.pool_config import ByEnvironment, PoolConfig
from reviewpoint_db.settings import read_variables, refuse
from reviewpoint_db.target import Backend, Target, is_loopback, normalize_url, understand
from reviewpoint_db.urls import MASK

__all__ = ["DatabaseConfig", "Environment", "PoolConfig", "normalize_url"]


DEFAULT_URL = "sqlite+aiosqlite:///./reviewpoint.sqlite3"

# The original module's table: production 10+20, development 5+10, parallel tests 1+1.
_POOL_SIZES: dict[Environment, tuple[int, int]] = {
    "dev": (5, 10),
    "test": (5, 10),
    "prod": (10, 20),
}
# PgBouncer holds the queue of what waits for the server: more of ours would only wait there.
_BEHIND_PGBOUNCER = (5, 5)


class DatabaseConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True
):
    """One database: where it is, how it is used, and its limits; times in seconds.

    Its fields are read from the environment by `DatabaseConfig.from_env()` alone. What is left open
    may depend on it: the pool's size on `PYTEST_XDIST_WORKER`, a URL without a host on `PGHOST`.

    Args:
        url: PostgreSQL or SQLite. None: `./reviewpoint.sqlite3`, refused in prod.
        environment: "dev", "test" or "prod". None: dev if the database is SQLite or on this machine,
            otherwise prod.
        name: Distinguishes several databases of one application.
        pool: The limits of the pool. None: depends on the environment.
        read_url: One or several replicas for read sessions, as one URL with several hosts.
        max_replica_lag: A replica that is further behind the primary is not used.
        read_your_writes: Let a client that has just written read what it wrote; a signed cookie links
            its requests.
        read_your_writes_secret: Signs that cookie; must be the same in all processes.
        read_your_writes_wait: How long such a read waits for a replica before it uses the primary.
        password: A function or coroutine function, called for every new connection, for rotating
            tokens; PostgreSQL only.
        pgbouncer: Whether connections go through PgBouncer in transaction mode. None: detected at
            login. True also makes the default pool 5+5.
        connect_timeout: Limit of one attempt to connect; `connect_timeout` in the URL takes precedence.
        query_timeout: Limit of one statement.
        health_timeout: Limit of one health check.
        leak_threshold: A connection held for longer is reported.
        idle_in_transaction_threshold: A transaction idle for longer is reported.
        slow_statement: A statement that takes longer is reported.
        retry_after: The Retry-After of a 503.
        session_class: The class of the sessions.
        engine_options: Passed to SQLAlchemy's `create_async_engine`.
        expected_processes: Worker processes that share the server, to check the pools against its
            `max_connections`.
        observe: Time statements, and watch for anything that takes too long. Set False to measure
            what this costs.

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
        check(self, self._read_target)
        force_setattr(self, "engine_options", dict(self.engine_options))
        force_setattr(
            self, "connect_timeout", self._target.arguments.get("timeout", self.connect_timeout)
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
        if self.backend == "postgresql" and not pool.sized and xdist_worker():
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
        password = self._read_password if read else self._own_password
        return make_connect_args(self, target, password, writable=target is self._target)

    # One each, whoever connects: it counts the calls that hang.

    @cached_property
    def _own_password(self) -> Password | None:
        source = self._password_source()
        return None if source is None else Password(source, self.connect_timeout)

    @cached_property
    def _read_password(self) -> Password | None:
        source = self._password_source(read=True)
        return None if source is None else Password(source, self.connect_timeout)

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
        """The fields that were given, without their secrets; the pool with the sizes that it will have."""
        safe: dict[str, object] = {
            "url": repr(self.safe_url),
            "read_url": repr(self.safe_read_url),
            "pool": repr(self.effective_pool),
            "password": MASK,
            "read_your_writes_secret": MASK,
            # Its values may be anything: connect arguments, creators.
            "engine_options": sorted(self.engine_options),
        }
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.name == "url" or value not in (field.default, {}):
                yield field.name, safe.get(field.name, repr(value))


def refuse_config(given: object) -> ConfigurationError:
    """Return the error for what is no configuration; a URL, say, which may bear a password."""
    kind = type(given).__name__
    return refuse("config", f"a {kind}", "not a DatabaseConfig", "give DatabaseConfig(url=...)")
