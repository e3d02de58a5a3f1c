"""What a database is configured with, checked when it is made."""

from __future__ import annotations

import ipaddress
import math
import os
import socket
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal, NoReturn, get_args

import msgspec
from msgspec.structs import force_setattr
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db import libpq
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.redaction import safe_url
from reviewpoint_db.urls import UrlParts, split_url

__all__ = ["DatabaseConfig", "Environment", "PoolConfig", "normalize_url"]

Environment = Literal["dev", "test", "prod"]
Backend = Literal["postgresql", "sqlite"]

DEFAULT_URL = "sqlite+aiosqlite:///./reviewpoint.sqlite3"

_DRIVERS: dict[str, tuple[Backend, str]] = {
    "postgres": ("postgresql", "asyncpg"),
    "postgresql": ("postgresql", "asyncpg"),
    "postgresql+asyncpg": ("postgresql", "asyncpg"),
    "postgres+asyncpg": ("postgresql", "asyncpg"),
    "sqlite": ("sqlite", "aiosqlite"),
    "sqlite+aiosqlite": ("sqlite", "aiosqlite"),
}

_SQLITE_PARAMETERS = ("cached_statements", "detect_types", "timeout", "uri")
_SQLITE_URI_PARAMETERS = ("cache", "immutable", "mode", "nolock", "psow", "vfs")

# These have a place in PoolConfig, or would undo a promise of this package.
_OWNED_OPTIONS = {
    "pool_size": "pool=PoolConfig(size=...)",
    "max_overflow": "pool=PoolConfig(max_overflow=...)",
    "pool_timeout": "pool=PoolConfig(timeout=...)",
    "pool_recycle": "pool=PoolConfig(max_lifetime=...)",
    "pool_reset_on_return": "pool=PoolConfig(reset_on_return=...)",
    "pool_pre_ping": "pool=PoolConfig(ping_after_idle=...)",
    "hide_parameters": "nothing: values are never shown",
}


class _ByEnvironment(int):
    """A default that says "not given": the environment decides."""


# The original module's table: production 10+20, development 5+10, parallel tests 1+1.
_POOL_SIZES: dict[Environment, tuple[int, int]] = {"dev": (5, 10), "test": (5, 10), "prod": (10, 20)}


def refuse(field: str, value: object, problem: str, fix: str) -> ConfigurationError:
    """The error for a refused setting; `value` must be safe to show."""
    return ConfigurationError(f"{field} = {value}: {problem}. Fix: {fix}.")


def _check_number(field: str, value: object, lowest: float, *, whole: bool = False) -> None:
    kind = int if whole else (int, float)
    named = "a whole number" if whole else "a number of seconds"
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        raise refuse(field, repr(value), f"not {named}", f"give {named}")
    if value < lowest or (not whole and lowest > 0 and value <= 0):
        raise refuse(field, repr(value), "too small", f"give {lowest:g} or more")


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of a connection pool; times in seconds.

    Args:
        size: Connections that are kept open. Default: by the environment.
        max_overflow: Connections more in a burst. Default: by the environment.
        timeout: One deadline for all of acquiring: queue, connect, verification, retries.
        idle_timeout: How long a burst connection stays open after its return.
        max_lifetime: Age at which a connection is replaced, less up to 10% at random.
        ping_after_idle: A connection idle for longer is verified by a round trip.
        reset_on_return: What ends a transaction that a returned connection still has open.

    Example:
        >>> PoolConfig(size=3, max_overflow=0).timeout
        10.0
    """

    size: int = _ByEnvironment(5)
    max_overflow: int = _ByEnvironment(10)
    timeout: float = 10.0
    idle_timeout: float = 60.0
    max_lifetime: float = 1800.0
    ping_after_idle: float = 0.5
    reset_on_return: Literal["rollback", "commit"] = "rollback"

    def __post_init__(self) -> None:
        _check_number("pool.size", self.size, 1, whole=True)
        _check_number("pool.max_overflow", self.max_overflow, 0, whole=True)
        _check_number("pool.timeout", self.timeout, 0.001)
        _check_number("pool.idle_timeout", self.idle_timeout, 0)
        _check_number("pool.max_lifetime", self.max_lifetime, 0.001)
        _check_number("pool.ping_after_idle", self.ping_after_idle, 0)
        if self.reset_on_return not in ("rollback", "commit"):
            shown = repr(self.reset_on_return)
            raise refuse(
                "pool.reset_on_return", shown, "unknown", 'give "rollback" or "commit"'
            )

    @property
    def sized(self) -> bool:
        """Whether `size` or `max_overflow` was given."""
        return not (
            isinstance(self.size, _ByEnvironment) and isinstance(self.max_overflow, _ByEnvironment)
        )


class _Target(msgspec.Struct, frozen=True):
    """One URL, understood."""

    url: URL
    shown: str
    backend: Backend
    hosts: tuple[tuple[str, int | None], ...]
    arguments: dict[str, Any]

    @property
    def in_memory(self) -> bool:
        query, database = self.url.query, self.url.database
        if self.backend != "sqlite":
            return False
        return not database or ":memory:" in database or query.get("mode") == "memory"


def normalize_url(url: str) -> URL:
    """The URL as SQLAlchemy needs it: with our drivers, without libpq's parameters.

    Args:
        url: `postgres://`, `postgresql://` or `sqlite://`, with or without the driver's name.

    Raises:
        ConfigurationError: The URL or its driver is not one that works here.

    Example:
        >>> normalize_url("postgres://ann@localhost/papers").drivername
        'postgresql+asyncpg'
    """
    return _understand("url", url).url


def _understand(field: str, url: str) -> _Target:
    if not isinstance(url, str):
        raise refuse(field, f"a {type(url).__name__}", "not a string", "give the URL as a string")
    shown = safe_url(url)

    def problem(text: str, fix: str) -> ConfigurationError:
        return refuse(field, shown, text, fix)

    parts = split_url(url)
    if parts is None:
        raise problem(
            "not a database URL, or one that can be read in two ways",
            "write postgresql://user:password@host:5432/database or sqlite:///file.sqlite3, and "
            "percent-encode @ : / ? # % in user name and password (urllib.parse.quote)",
        )
    if parts.scheme not in _DRIVERS:
        raise problem(
            f"the driver {parts.scheme!r} is not supported",
            "use postgresql+asyncpg:// or sqlite+aiosqlite://",
        )
    backend, driver = _DRIVERS[parts.scheme]
    if find_spec(driver) is None:
        raise problem(f"the driver {driver} is not installed", f"pip install {driver}")
    if backend == "sqlite":
        return _understand_sqlite(parts, shown, problem)
    return _understand_postgresql(parts, shown, problem)


def _understand_sqlite(parts: UrlParts, shown: str, problem: libpq.Refuse) -> _Target:
    if parts.username is not None or any(host or port for host, port in parts.hosts):
        raise problem(
            "a SQLite URL has no host and no user",
            "use three slashes for a relative path, four for an absolute one: sqlite:///file.sqlite3",
        )
    uri = parts.parameter("uri") in ("true", "1", "on", "yes")
    allowed = _SQLITE_PARAMETERS + (_SQLITE_URI_PARAMETERS if uri else ())
    for name, _ in parts.query:
        if name in _SQLITE_URI_PARAMETERS and not uri:
            raise problem(f"{name} has no effect without uri=true", "write sqlite:///file:path?uri=true&…")
        if name not in allowed:
            raise problem("an unknown parameter", f"use {', '.join(allowed)}, or none")
    url = URL.create("sqlite+aiosqlite", database=parts.database, query=dict(parts.query))
    return _Target(url, shown, "sqlite", (), {})


def _understand_postgresql(parts: UrlParts, shown: str, problem: libpq.Refuse) -> _Target:
    hosts = libpq.hosts_of(parts, problem)
    if any(port is not None and not 0 < port < 65536 for _, port in hosts):
        raise problem("a port is not between 1 and 65535", "give the server's port, e.g. 5432")
    if len(hosts) > 1 and not all(host for host, _ in hosts):
        raise problem("one of several hosts is empty", "name every host")
    arguments = libpq.connect_arguments(parts, hosts, problem)
    host, port = hosts[0] if hosts else ("", None)
    only_port = parts.parameter("port") if not hosts else None
    if only_port:
        raise problem("port= without host=", "give the host too")
    url = URL.create(
        "postgresql+asyncpg",
        username=parts.username or parts.parameter("user"),
        password=parts.password if parts.password is not None else parts.parameter("password"),
        host=None if host.startswith("/") else host or None,
        port=port,
        database=parts.database or parts.parameter("dbname"),
    )
    return _Target(url, shown, "postgresql", hosts, arguments)


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
        read_url: A replica for read sessions.
        password: Called for every new connection, for rotating tokens; PostgreSQL only.
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
    password: Callable[[], str] | None = None
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

    def __post_init__(self) -> None:
        self._check_names()
        for field in ("connect_timeout", "query_timeout", "health_timeout", "leak_threshold"):
            _check_number(field, getattr(self, field), 0.001)
        for field in ("idle_in_transaction_threshold", "slow_statement", "retry_after"):
            _check_number(field, getattr(self, field), 0)
        _check_number("expected_processes", self.expected_processes, 1, whole=True)
        self._check_types()
        self._check_pool()
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
        name = self.name
        plain = isinstance(name, str) and name.isascii() and 0 < len(name) <= 63
        if not plain or not name.replace("-", "_").replace(".", "_").isidentifier():
            raise refuse("name", repr(name), "not a name", "use letters, digits, _ - and .")

    def _check_types(self) -> None:
        if self.pool is not None and not isinstance(self.pool, PoolConfig):
            raise refuse("pool", type(self.pool).__name__, "not a PoolConfig", "give PoolConfig(...)")
        if self.session_class is not None and not (
            isinstance(self.session_class, type) and issubclass(self.session_class, AsyncSession)
        ):
            raise refuse(
                "session_class",
                repr(self.session_class),
                "not a class of sessions",
                "give a subclass of sqlalchemy.ext.asyncio.AsyncSession",
            )
        if not isinstance(self.engine_options, Mapping):
            kind = type(self.engine_options).__name__
            raise refuse("engine_options", kind, "not a mapping", "give a dict")
        for option, instead in _OWNED_OPTIONS.items():
            if option in self.engine_options:
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
        read = self._read_target
        if read is not None and (read.backend != self.backend or read.in_memory):
            raise refuse(
                "read_url", read.shown, f"not a replica of {self.safe_url}", "give a replica's URL"
            )

    def _check_password(self) -> None:
        if self.password is None:
            return
        if not callable(self.password):
            raise refuse(
                "password", "***", "not callable", "give a function, or put it into the URL"
            )
        if self.backend != "postgresql":
            raise refuse("password", "a callable", "SQLite has no passwords", "leave it out")
        if self.sqlalchemy_url.password is not None:
            raise refuse(
                "password", "a callable", f"{self.safe_url} has one too", "take one of them out"
            )

    @cached_property
    def _target(self) -> _Target:
        return _understand("url", DEFAULT_URL if self.url is None else self.url)

    @cached_property
    def _read_target(self) -> _Target | None:
        return None if self.read_url is None else _understand("read_url", self.read_url)

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
    def backend(self) -> Backend:
        """Which database it is."""
        return self._target.backend

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
                if not _is_loopback(host):
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
        if self.backend == "postgresql" and not pool.sized and _xdist_worker():
            size, overflow, reset = 1, 1, "commit"
        return msgspec.structs.replace(
            pool,
            size=size if isinstance(pool.size, _ByEnvironment) else pool.size,
            max_overflow=(
                overflow if isinstance(pool.max_overflow, _ByEnvironment) else pool.max_overflow
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
            return {"check_same_thread": False, "timeout": self.effective_pool.timeout}
        arguments = {"timeout": self.connect_timeout, "command_timeout": self.query_timeout}
        arguments |= target.arguments
        arguments["server_settings"] = {
            "application_name": self._application_name(),
            **target.arguments.get("server_settings", {}),
        }
        if self.password is not None:
            arguments["password"] = self.password
        return arguments

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
        from reviewpoint_db.environ import read_environment

        return cls(**read_environment(os.environ if environ is None else environ))

    def __repr__(self) -> str:
        return f"DatabaseConfig(url={self.safe_url!r})"


def _is_loopback(host: str) -> bool:
    if host in ("", "localhost") or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _xdist_worker() -> str | None:
    return os.environ.get("PYTEST_XDIST_WORKER") or None
