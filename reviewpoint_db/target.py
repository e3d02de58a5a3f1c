"""The database that a URL points to, and how its driver connects to it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Literal

import sqlalchemy
from sqlalchemy.engine import URL

from reviewpoint_db import libpq
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.redaction import safe_url
from reviewpoint_db.settings import refuse
from reviewpoint_db.urls import UrlParts, split_url

__all__ = ["Backend", "Target", "is_loopback", "normalize_url", "understand"]

Backend = Literal["postgresql", "sqlite"]

_DRIVERS: dict[str, tuple[Backend, str]] = {
    "cockroachdb": ("postgresql", "asyncpg"),
    "cockroachdb+asyncpg": ("postgresql", "asyncpg"),
    "postgres": ("postgresql", "asyncpg"),
    "postgres+asyncpg": ("postgresql", "asyncpg"),
    "postgresql": ("postgresql", "asyncpg"),
    "postgresql+asyncpg": ("postgresql", "asyncpg"),
    "sqlite": ("sqlite", "aiosqlite"),
    "sqlite+aiosqlite": ("sqlite", "aiosqlite"),
}

_COCKROACHDB: Final = "cockroachdb"
_SQLITE_PARAMETERS = ("cached_statements", "detect_types", "timeout", "uri")
_SQLITE_URI_PARAMETERS = ("cache", "immutable", "mode", "nolock", "psow", "vfs")


_EXAMPLES: Final = "postgresql://user:password@host:5432/database or sqlite:///file.sqlite3"
#: What happens to a URL on its way here: pattern, problem, fix.
_SLIPS: Final = (
    (r"\A\Z", "it is empty", f"write {_EXAMPLES}, or leave it out"),
    (r"\A\s|\s\Z", "there is white space around it", "remove it"),
    (
        r"\A[\"'`]",
        "there are quotation marks around it",
        "remove them: docker, for one, takes those of its --env-file for a part of the value",
    ),
    (
        r"\A(export )?\w+=\S*://",
        "it begins with the name of a variable",
        "give what is after the = alone",
    ),
    (r"\A\$", "it is the name of a variable", "give the variable's value"),
    (r"\A(?!.*://)", "it has no ://", f"write {_EXAMPLES}"),
)


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A database.

    Attributes:
        url: For SQLAlchemy, with the password, without libpq's parameters.
        shown: The URL as it may be shown.
        backend: Which database it is.
        hosts: Where it runs; a name beginning with `/` is a socket's folder. Empty: SQLite, or the
            driver's own default.
        arguments: For the driver's `connect()`, from the URL's parameters.
    """

    url: URL
    shown: str
    backend: Backend
    hosts: tuple[tuple[str, int | None], ...]
    arguments: dict[str, Any]

    def __repr__(self) -> str:
        return f"Target({self.shown!r})"

    @property
    def is_cockroachdb(self) -> bool:
        """Whether it is CockroachDB, which speaks PostgreSQL's protocol and is another server."""
        return self.url.get_backend_name() == _COCKROACHDB

    @property
    def in_memory(self) -> bool:
        """Whether it is a SQLite database without a file."""
        if self.backend != "sqlite":
            return False
        database = self.url.database
        return not database or ":memory:" in database or self.url.query.get("mode") == "memory"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine; no name is the driver's default, a local socket."""
    if host in {"", "localhost"} or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def normalize_url(url: str) -> URL:
    """The URL as SQLAlchemy needs it: with our drivers, without libpq's parameters.

    Args:
        url: `postgres://`, `postgresql://`, `cockroachdb://` or `sqlite://`, with or without the driver's name.

    Raises:
        ConfigurationError: The URL or its driver is not one that works here.

    Example:
        >>> normalize_url("postgres://ann@localhost/papers").drivername
        'postgresql+asyncpg'
    """
    return understand("url", url).url


def understand(field: str, url: object) -> Target:
    """Read a URL.

    Args:
        field: The setting that it comes from, for the message of a refusal.
        url: The URL.

    Raises:
        ConfigurationError: The URL or its driver is not one that works here.
    """
    if not isinstance(url, str):
        fix = "give the URL as a string"
        if isinstance(url, URL):  # whose str() has *** in place of the password
            fix += ": url.render_as_string(hide_password=False)"
        raise refuse(field, f"a {type(url).__name__}", "not a string", fix)
    shown = safe_url(url.strip())

    def problem(text: str, fix: str) -> ConfigurationError:
        return refuse(field, shown, text, fix)

    for pattern, text, fix in _SLIPS:
        if re.search(pattern, url):
            raise problem(text, fix)
    parts = split_url(url)
    if parts is None:
        raise problem(
            "not a database URL, or one that can be read in two ways",
            f"write {_EXAMPLES}, and "
            "percent-encode @ : / ? # % in user name and password (urllib.parse.quote)",
        )
    if parts.scheme not in _DRIVERS:
        fix = "use postgresql+asyncpg:// or sqlite+aiosqlite://"
        database = parts.scheme.partition("+")[0]
        if database in _DRIVERS:  # by another driver
            fix = f"use {database}+{_DRIVERS[database][1]}://"
        raise problem(f"the driver {parts.scheme} is not supported", fix)
    backend, driver = _DRIVERS[parts.scheme]
    if find_spec(driver) is None:
        raise problem(f"the driver {driver} is not installed", f"pip install {driver}")
    if parts.scheme.startswith(_COCKROACHDB) and not _has_dialect_of_cockroachdb():
        raise problem(
            "CockroachDB's dialect is not installed, or this is not SQLAlchemy 2.0 "
            f"(it is {sqlalchemy.__version__}), the only one that it works with",
            "pip install 'reviewpoint-db[cockroachdb]' 'sqlalchemy<2.1'",
        )
    if backend == "sqlite":
        return _understand_sqlite(parts, shown, problem)
    return _understand_postgresql(parts, shown, problem)


def _has_dialect_of_cockroachdb() -> bool:
    return find_spec("sqlalchemy_cockroachdb") is not None and sqlalchemy.__version__.startswith(
        "2.0."
    )


def _understand_sqlite(parts: UrlParts, shown: str, problem: libpq.Refuse) -> Target:
    if parts.username is not None or parts.hosts:
        raise problem(
            "a SQLite URL has no host and no user",
            "use three slashes for a relative path and four for an absolute one: "
            "sqlite:///file.sqlite3",
        )
    uri = (parts.parameter("uri") or "").lower() in {"true", "yes", "on", "y", "t", "1"}
    allowed = _SQLITE_PARAMETERS + (_SQLITE_URI_PARAMETERS if uri else ())
    for name, _ in parts.query:
        if name in allowed:
            continue
        if name in _SQLITE_URI_PARAMETERS:
            raise problem(
                f"{name} has no effect without uri=true", "write sqlite:///file:path?uri=true&..."
            )
        raise problem("the URL has an unknown parameter", f"use {', '.join(allowed)}, or none")
    for name in ("cached_statements", "detect_types", "timeout"):
        value = parts.parameter(name)
        if value is not None and not re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
            raise problem(f"{name} is not a number", "give 0 or more")
    url = URL.create("sqlite+aiosqlite", database=parts.database, query=dict(parts.query))
    return Target(url, shown, "sqlite", (), {})


def _understand_postgresql(parts: UrlParts, shown: str, problem: libpq.Refuse) -> Target:
    hosts = libpq.hosts_of(parts, problem)
    arguments = libpq.connect_arguments(parts, hosts, problem)
    host, port = hosts[0] if hosts else ("", None)
    password = parts.password
    if password is None:
        password = parts.parameter("password")
    dialect = _COCKROACHDB if parts.scheme.startswith(_COCKROACHDB) else "postgresql"
    url = URL.create(
        f"{dialect}+asyncpg",
        username=parts.username or parts.parameter("user"),
        password=password,
        # A socket's folder is among the arguments.
        host=None if host.startswith("/") else host or None,
        port=port,
        database=parts.database or parts.parameter("dbname"),
    )
    return Target(url, shown, "postgresql", hosts, arguments)
