"""libpq's connection parameters in a PostgreSQL URL, translated for asyncpg.

asyncpg understands most of them only in a DSN of its own, and sends every name that it does not know
to the server as a setting. Here each parameter is translated, is known to change nothing, or is
refused by name. https://www.postgresql.org/docs/current/libpq-connect.html
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from reviewpoint_db.urls import UrlParts

__all__ = ["DEFAULT_PORT", "connect_arguments", "hosts_of"]

DEFAULT_PORT = 5432

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SESSION_ATTRIBUTES = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

# Only a DSN carries these to asyncpg.
_SSL_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_DSN_ONLY = (
    *_SSL_FILES,
    "sslpassword",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)

# Treated together, in _set_ssl.
_TLS = ("sslmode", "ssl", "sslnegotiation", *_DSN_ONLY)

_CHOICES = {
    "target_session_attrs": _SESSION_ATTRIBUTES,
    "gsslib": ("gssapi", "sspi"),
}

_SERVER_SETTINGS = ("application_name", "options")

# asyncpg has arguments of the same names.
_AS_GIVEN = ("krbsrvname", "passfile")

# Parts of the address, taken out elsewhere.
_ADDRESS = ("host", "port", "user", "password", "dbname")

# Whole numbers that asyncpg and SQLAlchemy's dialect for it take as they are.
_CACHE_SIZES = (
    "prepared_statement_cache_size",
    "statement_cache_size",
    "max_cached_statement_lifetime",
    "max_cacheable_statement_size",
)

# Values that ask for what asyncpg does anyway, and what to do instead of the other values.
_WITHOUT_EFFECT: dict[str, tuple[tuple[str, ...], str]] = {
    "channel_binding": (
        ("disable", "prefer"),
        "remove it, and use sslmode=verify-full to be sure of the server",
    ),
    "gssencmode": (("disable", "prefer"), "asyncpg has no GSSAPI encryption; use sslmode=require"),
    "client_encoding": (("auto", "utf8", "UTF8", "utf-8", "UTF-8"), "asyncpg always uses UTF-8"),
    "load_balance_hosts": (
        ("disable",),
        "asyncpg tries the hosts in their order; put a load balancer in front",
    ),
    "sslcompression": (("0",), "TLS compression is unsafe and not offered; remove it"),
    "sslsni": (("1",), "asyncpg always sends the server name; remove it"),
}

_REFUSED: dict[str, str] = {
    "gssdelegation": "asyncpg does not delegate GSSAPI credentials; remove it",
    "hostaddr": "give the address as host",
    "keepalives": "set the kernel's TCP keep-alive; pool.ping_after_idle finds dead connections",
    "keepalives_count": "set the kernel's net.ipv4.tcp_keepalive_probes",
    "keepalives_idle": "set the kernel's net.ipv4.tcp_keepalive_time",
    "keepalives_interval": "set the kernel's net.ipv4.tcp_keepalive_intvl",
    "replication": "a replication connection is not for an application",
    "require_auth": "asyncpg cannot restrict the method; use sslmode=verify-full",
    "requirepeer": "asyncpg cannot check the peer of a socket; remove it",
    "requiressl": "use sslmode=require",
    "service": "write the service's parameters into the URL",
    "sslcertmode": "give or omit sslcert",
    "sslcrldir": "name one file with sslcrl",
    "ssl_key": "the parameter's name is sslkey",
    "tcp_user_timeout": "query_timeout bounds every statement",
}

_KNOWN = frozenset(
    {
        *_ADDRESS,
        *_AS_GIVEN,
        *_CACHE_SIZES,
        *_CHOICES,
        *_REFUSED,
        *_SERVER_SETTINGS,
        *_TLS,
        *_WITHOUT_EFFECT,
        "connect_timeout",
        "fallback_application_name",
    }
)

Refuse = Callable[[str, str], Exception]
"""Makes the error for a problem and its fix; the caller knows the field and its redacted value."""


def hosts_of(parts: UrlParts, refuse: Refuse) -> tuple[tuple[str, int | None], ...]:
    """The hosts of the authority or of `host=` and `port=`, each with its port.

    Args:
        parts: The URL.
        refuse: Makes the error of a refusal.
    """
    given = [value for name, value in parts.query if name == "host" and value]
    ports = (parts.parameter("port") or "").split(",")
    if given and parts.hosts:
        raise refuse("the host is given twice", "give it before the path or as host=, not both")
    if not given and ports != [""]:
        raise refuse("port= stands without host=", "give host= too, or host:port before the path")
    hosts = _hosts_of_query(given, ports, refuse) if given else parts.hosts
    if any(port is not None and not 0 < port < 65536 for _, port in hosts):
        raise refuse("a port is not between 1 and 65535", "give the server's port, e.g. 5432")
    if len(hosts) > 1 and not all(host for host, _ in hosts):
        raise refuse("one of several hosts is empty", "name every host")
    return hosts


def _hosts_of_query(
    given: list[str], ports: list[str], refuse: Refuse
) -> tuple[tuple[str, int | None], ...]:
    specs = [spec for value in given for spec in value.split(",")]
    if len(ports) == 1:
        ports *= len(specs)
    if len(ports) != len(specs):
        raise refuse(
            f"{len(specs)} hosts have {len(ports)} ports", "give one port, or one for each host"
        )
    return tuple(
        _host_and_port(spec, port, refuse) for spec, port in zip(specs, ports, strict=True)
    )


def _host_and_port(spec: str, port: str, refuse: Refuse) -> tuple[str, int | None]:
    host, _, own = spec.rpartition(":") if spec.count(":") == 1 else (spec, "", "")
    if spec.startswith("/"):
        host, own = spec, ""
    port = own or port
    if not host or (port and not (port.isascii() and port.isdigit())):
        raise refuse("host= or port= cannot be read", "write host=name:5432 or host=name&port=5432")
    return host.strip("[]"), int(port) if port else None


def connect_arguments(
    parts: UrlParts, hosts: tuple[tuple[str, int | None], ...], refuse: Refuse
) -> dict[str, Any]:
    """The arguments for `asyncpg.connect()` that stand for the URL's parameters.

    Args:
        parts: The URL.
        hosts: Its hosts, from `hosts_of`.
        refuse: Makes the error of a refusal.

    Returns:
        Arguments to give to SQLAlchemy as `connect_args`; `server_settings` and `timeout` are there
        only when the URL asks for them.
    """
    arguments: dict[str, Any] = {}
    # Of several values the last one counts, as in libpq.
    for name, value in dict(parts.query).items():
        if name not in _KNOWN:
            # An `&` in a password makes a name of what follows it: not to be shown.
            shown = "" if parts.has_secret_parameters else f" {name}"
            raise refuse(
                f"the URL has an unknown parameter{shown}",
                "use libpq's names; a server setting is written options=-c%20name%3Dvalue",
            )
        if value:
            _translate(name, value, arguments, refuse)
    _set_ssl(parts, arguments, refuse)
    if len(hosts) > 1 or any(host.startswith("/") for host, _ in hosts):
        arguments["host"] = [host for host, _ in hosts]
        arguments["port"] = [port or DEFAULT_PORT for _, port in hosts]
    return arguments


def _translate(name: str, value: str, arguments: dict[str, Any], refuse: Refuse) -> None:
    if name in _REFUSED:
        raise refuse(f"asyncpg cannot do {name}", _REFUSED[name])
    if name in _WITHOUT_EFFECT:
        values, fix = _WITHOUT_EFFECT[name]
        if value not in values:
            raise refuse(f"asyncpg cannot do {name}={value}", fix)
    elif name in _CHOICES:
        arguments[name] = _one_of(name, value, _CHOICES[name], refuse)
    elif name in _CACHE_SIZES:
        arguments[name] = _whole_number(name, value, refuse)
    elif name == "connect_timeout":
        # libpq's 0 is an endless wait.
        arguments["timeout"] = float(_whole_number(name, value, refuse, lowest=1))
    elif name in _SERVER_SETTINGS:
        arguments.setdefault("server_settings", {})[name] = value
    elif name == "fallback_application_name":
        arguments.setdefault("server_settings", {}).setdefault("application_name", value)
    elif name in _AS_GIVEN:
        arguments[name] = value


def _set_ssl(parts: UrlParts, arguments: dict[str, Any], refuse: Refuse) -> None:
    # `ssl=` is what SQLAlchemy's documentation of asyncpg uses for the same thing.
    mode = parts.parameter("sslmode") or parts.parameter("ssl")
    if mode:
        _one_of("sslmode", mode, _SSL_MODES, refuse)
    dsn = {name: value for name in _DSN_ONLY if (value := parts.parameter(name))}
    if dsn.get("sslrootcert") == "system":
        dsn["sslrootcert"] = _system_certificates(mode, refuse)
    _check_files(dsn, refuse)
    for name in ("ssl_min_protocol_version", "ssl_max_protocol_version"):
        if name in dsn:
            _one_of(name, dsn[name], _TLS_VERSIONS, refuse)
    negotiation = parts.parameter("sslnegotiation") or "postgres"
    if _one_of("sslnegotiation", negotiation, ("postgres", "direct"), refuse) == "direct":
        if mode not in _SSL_MODES[3:]:
            raise refuse("sslnegotiation=direct needs TLS", "add sslmode=require or verify-full")
        arguments["direct_tls"] = True
    if dsn:
        # Every other part of the address is given apart.
        arguments["dsn"] = "postgresql://?" + urlencode(dsn)
    if mode:
        arguments["ssl"] = mode


def _check_files(given: dict[str, str], refuse: Refuse) -> None:
    """Load the files once: asyncpg would do it, and fail, at the first connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if "sslkey" in given and "sslcert" not in given:
        raise refuse("sslkey has no effect without sslcert", "add sslcert")
    for name in _SSL_FILES:
        if name in given and not Path(given[name]).is_file():
            raise refuse(f"the file of {name} does not exist", "give the path of a readable file")
    problem = None
    try:
        for name in ("sslrootcert", "sslcrl"):
            if name in given:
                context.load_verify_locations(cafile=given[name])
        name = "sslcert"
        if "sslkey" in given:
            password = given.get("sslpassword", "")
            context.load_cert_chain(given["sslcert"], given["sslkey"], lambda: password)
    except OSError as error:
        problem = f"the file of {name} cannot be loaded ({type(error).__name__})"
    if problem is not None:
        raise refuse(problem, "give a readable file in PEM format, and sslpassword for its key")


def _system_certificates(mode: str | None, refuse: Refuse) -> str:
    """The operating system's bundle: libpq's sslrootcert=system, which asyncpg does not know."""
    bundle = ssl.get_default_verify_paths().cafile
    if mode != "verify-full":
        # As in libpq: everybody can get a certificate that the system's roots have signed.
        raise refuse(
            "sslrootcert=system is weak without the host's name", "add sslmode=verify-full"
        )
    if bundle is None:
        raise refuse("this system has no certificate bundle", "name a file with sslrootcert")
    return bundle


def _one_of(name: str, value: str, allowed: tuple[str, ...], refuse: Refuse) -> str:
    if value not in allowed:
        raise refuse(f"{name} has an unknown value", f"use one of {', '.join(allowed)}")
    return value


def _whole_number(name: str, value: str, refuse: Refuse, *, lowest: int = 0) -> int:
    if not (value.isascii() and value.isdigit() and int(value) >= lowest):
        raise refuse(f"{name} is not a whole number", f"give {lowest} or more")
    return int(value)
