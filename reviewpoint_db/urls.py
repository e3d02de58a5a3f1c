"""A database URL taken apart, without being fooled by the password in it.

SQLAlchemy ends the password at the first ``@``, libpq and urllib at the last one, and a password
with ``/`` or ``?`` misleads each of them in its own way. What is ambiguous is refused here instead of
guessed: a wrong guess shows a piece of the password as host, database or parameter name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

__all__ = ["MASK", "UrlParts", "split_url"]

MASK = "***"
"""What stands in the place of a secret."""

_SHOWN_PARAMETERS = frozenset(
    {
        # libpq
        "application_name",
        "channel_binding",
        "connect_timeout",
        "dbname",
        "fallback_application_name",
        "gssencmode",
        "gsslib",
        "host",
        "krbsrvname",
        "passfile",
        "port",
        "ssl",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "target_session_attrs",
        "user",
        # asyncpg and SQLAlchemy's dialect for it
        "max_cacheable_statement_size",
        "max_cached_statement_lifetime",
        "prepared_statement_cache_size",
        "statement_cache_size",
        # SQLite
        "cache",
        "cached_statements",
        "detect_types",
        "immutable",
        "mode",
        "nolock",
        "psow",
        "timeout",
        "uri",
        "vfs",
    }
)
"""The parameters whose values may be shown; every other value is masked."""

_SECRET_PARAMETERS = frozenset({"password", "sslpassword"})

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)://")
# `host:5432/db?password=a@b` without credentials reads just like `user:password@host`.
_PORT_AND_QUERY = re.compile(r"[\d,]*(?:/[^?]*)?\?[^=]*=")


@dataclass(frozen=True, repr=False)
class UrlParts:
    """The decoded parts of a database URL.

    Example:
        >>> parts = split_url("postgresql://ann:p%40ss@db:5433/papers?sslmode=require")
        >>> parts.password, parts.hosts
        ('p@ss', (('db', 5433),))
        >>> print(parts)
        postgresql://ann:***@db:5433/papers?sslmode=require
    """

    scheme: str
    username: str | None
    password: str | None
    hosts: tuple[tuple[str, int | None], ...]
    database: str | None
    query: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"UrlParts({str(self)!r})"

    def __str__(self) -> str:
        """The URL as it may be shown: secrets masked, unknown parameters too."""
        login = ""
        if self.username is not None:
            login = quote(self.username, safe="")
            login += f":{MASK}@" if self.password is not None else "@"
        hosts = ",".join(_show_host(host, port) for host, port in self.hosts)
        path = "" if self.database is None else f"/{self.database}"
        query = "&".join(_show_parameter(name, value) for name, value in self.query)
        return f"{self.scheme}://{login}{hosts}{path}{'?' + query if query else ''}"

    @property
    def has_secret_parameters(self) -> bool:
        """Whether a password stands among the parameters."""
        return any(name in _SECRET_PARAMETERS for name, _ in self.query)

    def parameter(self, name: str) -> str | None:
        """The value of a parameter; of several the last one, as in libpq."""
        found = [value for key, value in self.query if key == name]
        return found[-1] if found else None


def _show_host(host: str, port: int | None) -> str:
    shown = quote(host, safe="") if host.startswith("/") else host
    shown = f"[{host}]" if ":" in host and not host.startswith("/") else shown
    return shown if port is None else f"{shown}:{port}"


def _show_parameter(name: str, value: str) -> str:
    if name in _SHOWN_PARAMETERS:
        return f"{name}={value}"
    return f"{name if name in _SECRET_PARAMETERS else MASK}={MASK}"


def split_url(url: str) -> UrlParts | None:
    """Take a database URL apart.

    Args:
        url: `scheme://[user[:password]@][host[:port][,host[:port]...]][/database][?parameters]`.

    Returns:
        The parts, or None when the text is no URL or can be read in two ways.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        return None
    login, rest = _split_login(url[scheme.end() :])
    if login is None:
        return None
    authority = _authority(rest)
    path, _, query = rest[len(authority) :].partition("?")
    # Only the path of a file may have an `@`.
    file = scheme[1].lower().startswith("sqlite") and not login
    if not file and ("@" in authority + path or (login and "@" in query)):
        return None
    hosts = _split_hosts(authority)
    parameters = _split_query(query)
    if hosts is None or parameters is None:
        return None
    username, colon, password = login.partition(":")
    return UrlParts(
        scheme=scheme[1].lower(),
        username=unquote(username) if login else None,
        password=unquote(password) if colon else None,
        hosts=hosts,
        # A SQLite path is everything after the third slash.
        database=(unquote(path[1:]) or None) if path else None,
        query=parameters,
    )


def _split_login(rest: str) -> tuple[str | None, str]:
    """`user:password` (empty: none; None: ambiguous) and what follows the `@`."""
    user = re.split(r"[:/@?]", rest, maxsplit=1)[0]
    following = rest[len(user) : len(user) + 1]
    if following == "@":
        return user, rest[len(user) + 1 :]
    if following != ":" or "@" not in rest:
        return "", rest
    at = rest.find("@")
    # A password with an unescaped `@`: the host begins after the last one.
    while "@" in _authority(rest[at + 1 :]):
        at = rest.find("@", at + 1)
    if _PORT_AND_QUERY.match(rest[len(user) + 1 : at]):
        return None, rest
    return rest[:at], rest[at + 1 :]


def _authority(rest: str) -> str:
    return re.split(r"[/?]", rest, maxsplit=1)[0]


def _split_hosts(authority: str) -> tuple[tuple[str, int | None], ...] | None:
    hosts: list[tuple[str, int | None]] = []
    for spec in authority.split(",") if authority else ():
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]*))(?::(\d*))?", spec)
        if match is None:
            return None
        hosts.append((unquote(match[1] or match[2]), int(match[3]) if match[3] else None))
    return tuple(hosts)


def _split_query(query: str) -> tuple[tuple[str, str], ...] | None:
    """The parameters, percent-decoded as libpq does it: a `+` is a plus sign."""
    parameters: list[tuple[str, str]] = []
    for pair in filter(None, query.split("&")):
        name, equals, value = pair.partition("=")
        if not equals:
            return None
        parameters.append((unquote(name), unquote(value)))
    return tuple(parameters)
