"""libpq's parameters work, or are refused by name."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import certifi
import pytest

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def arguments(query: str, hosts: str = "h") -> dict[str, Any]:
    config = DatabaseConfig(url=f"postgresql://{hosts}/db?{query}", environment="test")
    found = config.connect_args()
    found["server_settings"].setdefault("application_name", None)
    return found


def refusal(query: str, hosts: str = "h") -> str:
    with pytest.raises(ConfigurationError) as caught:
        DatabaseConfig(url=f"postgresql://{hosts}/db?{query}")
    assert "Fix: " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        *[
            (f"sslmode={mode}", "ssl", mode)
            for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
        ],
        ("ssl=require", "ssl", "require"),
        ("target_session_attrs=read-write", "target_session_attrs", "read-write"),
        ("connect_timeout=3", "timeout", 3.0),
        ("krbsrvname=pg", "krbsrvname", "pg"),
        ("gsslib=gssapi", "gsslib", "gssapi"),
        ("passfile=/x", "passfile", "/x"),
        ("prepared_statement_cache_size=0", "prepared_statement_cache_size", 0),
        ("statement_cache_size=0", "statement_cache_size", 0),
        ("sslmode=require&sslnegotiation=direct", "direct_tls", True),
    ],
)
def test_a_parameter_becomes_an_argument(query: str, name: str, value: object) -> None:
    assert arguments(query)[name] == value


@pytest.mark.parametrize(
    "query",
    [
        "channel_binding=prefer",
        "gssencmode=disable",
        "client_encoding=utf8",
        "load_balance_hosts=disable",
        "sslcompression=0",
        "sslsni=1",
        "sslnegotiation=postgres",
        "sslmode=",
    ],
)
def test_a_parameter_that_asks_for_what_is_done_anyway_changes_nothing(query: str) -> None:
    assert arguments(query) == arguments("")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("channel_binding=require", "asyncpg cannot do channel_binding=require"),
        ("gssencmode=require", "asyncpg cannot do gssencmode=require"),
        ("keepalives_idle=5", "asyncpg cannot do keepalives_idle"),
        ("service=x", "asyncpg cannot do service"),
        ("hostaddr=10.0.0.1", "give the address as host"),
        ("sslmode=maybe", "use one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("target_session_attrs=x", "use one of any, read-write"),
        ("connect_timeout=0", "connect_timeout is not a whole number. Fix: give 1 or more"),
        ("connect_timeout=x", "connect_timeout is not a whole number"),
        ("statement_cache_size=-1", "statement_cache_size is not a whole number"),
        ("search_path=papers", "unknown parameter search_path"),
        ("sslnegotiation=direct", "sslnegotiation=direct needs TLS"),
        ("sslnegotiation=x", "use one of postgres, direct"),
        ("ssl_min_protocol_version=SSLv3", "use one of TLSv1,"),
        ("sslrootcert=/nowhere", "the file of sslrootcert does not exist"),
        ("sslkey=/nowhere", "sslkey has no effect without sslcert"),
        ("sslmode=require&sslrootcert=system", "add sslmode=verify-full"),
        ("host=x", "the host is given twice"),
        ("port=1", "port= stands without host="),
    ],
)
def test_a_parameter_is_refused_by_name(query: str, problem: str) -> None:
    assert problem in refusal(query)


def test_a_name_is_not_shown_where_it_may_be_a_piece_of_a_password() -> None:
    message = refusal("password=a&secret=b")
    assert "unknown parameter." in message
    assert "secret" not in message


def server_settings(query: str) -> dict[str, str]:
    """The settings that a connection asks for, but for the keepalive that each has."""
    settings = arguments(query)["server_settings"]
    return {name: value for name, value in settings.items() if not name.startswith("tcp_")}


def test_the_settings_of_the_server() -> None:
    settings = server_settings(
        "options=-c%20a%3Db&application_name=me&fallback_application_name=you"
    )
    assert settings == {"application_name": "me", "options": "-c a=b"}
    settings = server_settings("fallback_application_name=you&application_name=me")
    assert settings == {"application_name": "me"}
    assert server_settings("fallback_application_name=you") == {"application_name": "you"}


@pytest.mark.parametrize(
    ("hosts", "query", "expected"),
    [
        ("a,b:2", "", (["a", "b"], [5432, 2])),
        ("[::1]:1,b", "", (["::1", "b"], [1, 5432])),
        ("%2Frun", "", (["/run"], [5432])),
        ("", "host=/run:x&port=2", (["/run:x"], [2])),
        ("", "host=a,b&port=1,2", (["a", "b"], [1, 2])),
        ("", "host=a,b&port=1", (["a", "b"], [1, 1])),
        ("", "host=a:1&host=b:2", (["a", "b"], [1, 2])),
        ("", "host=a,::1", (["a", "::1"], [5432, 5432])),
    ],
)
def test_hosts_that_sqlalchemy_cannot_write_into_a_url(
    hosts: str, query: str, expected: tuple[list[str], list[int]]
) -> None:
    found = arguments(query, hosts)
    assert (found["host"], found["port"]) == expected


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("host=a,b&port=1,2,3", "2 hosts have 3 ports"),
        ("host=a,,b", "host= or port= cannot be read"),
        ("host=a&port=x", "host= or port= cannot be read"),
        ("host=a:70000", "a port is not between"),
    ],
)
def test_hosts_that_cannot_be_read_are_refused(query: str, problem: str) -> None:
    assert problem in refusal(query, "")


def test_the_files_of_tls_travel_in_a_dsn(tmp_path: Path) -> None:
    bundle = certifi.where()
    certificate = tmp_path / "client +.crt"
    certificate.write_text("", encoding="utf-8")
    dsn = arguments(
        f"sslmode=verify-ca&sslrootcert={bundle}&sslcert={quote(str(certificate))}"
        "&ssl_min_protocol_version=TLSv1.3"
    )["dsn"]
    assert urlsplit(dsn).netloc == urlsplit(dsn).path == ""
    assert parse_qs(urlsplit(dsn).query) == {
        "sslrootcert": [bundle],
        "sslcert": [str(certificate)],
        "ssl_min_protocol_version": ["TLSv1.3"],
    }


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("broken", encoding="utf-8")
    assert "sslrootcert cannot be loaded" in refusal(f"sslrootcert={broken}")
    assert "sslcrl cannot be loaded" in refusal(f"sslcrl={broken}")
    message = refusal(f"sslcert={broken}&sslkey={broken}&sslpassword=secret")
    assert "sslcert cannot be loaded" in message
    assert "secret" not in message


def test_the_certificates_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = ssl.get_default_verify_paths()
    query = "sslmode=verify-full&sslrootcert=system"
    bundle = certifi.where()
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths._replace(cafile=bundle))
    assert parse_qs(urlsplit(arguments(query)["dsn"]).query) == {"sslrootcert": [bundle]}
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths._replace(cafile=None))  # type: ignore[arg-type]
    assert "no certificate bundle" in refusal(query)
