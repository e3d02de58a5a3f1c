"""A URL is taken apart as its author meant it, or not at all."""

from __future__ import annotations

import pytest

from reviewpoint_db.urls import split_url


@pytest.mark.parametrize(
    ("url", "username", "password", "hosts", "database"),
    [
        ("postgresql://u:p@h/db", "u", "p", (("h", None),), "db"),
        ("postgresql://u:p%40s%2Fs@h:1/db", "u", "p@s/s", (("h", 1),), "db"),
        ("postgresql://u:p@ss@h/db", "u", "p@ss", (("h", None),), "db"),
        ("postgresql://u:p/w?x#y@h/db", "u", "p/w?x#y", (("h", None),), "db"),
        ("postgresql://u:12/34@h/db", "u", "12/34", (("h", None),), "db"),
        ("postgresql://u:a:b@h", "u", "a:b", (("h", None),), None),
        ("postgresql://u@h", "u", None, (("h", None),), None),
        ("postgresql://u:@h", "u", "", (("h", None),), None),
        ("postgresql://h:1/db", None, None, (("h", 1),), "db"),
        ("postgresql:///db", None, None, (), "db"),
        ("postgresql://", None, None, (), None),
        (
            "postgresql://a:1,[::1]:2,%2Frun/db",
            None,
            None,
            (("a", 1), ("::1", 2), ("/run", None)),
            "db",
        ),
        ("SQLITE:////tmp/a@b:c/x.db", None, None, (), "/tmp/a@b:c/x.db"),
        ("sqlite://", None, None, (), None),
        ("sqlite:///", None, None, (), None),
    ],
)
def test_the_parts_of_a_url(
    url: str,
    username: str | None,
    password: str | None,
    hosts: tuple[tuple[str, int | None], ...],
    database: str | None,
) -> None:
    parts = split_url(url)
    assert parts is not None
    assert (parts.username, parts.password) == (username, password)
    assert (parts.hosts, parts.database) == (hosts, database)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "postgres",
        "host/database",
        "postgresql:/u:p@h",
        "postgresql://u:p@s/s@h/db",
        "postgresql://u:p@s?s@h/db",
        "postgresql://u:p@s?host=s@h/db",
        "postgresql://u@x@h/db",
        "postgresql://h:5432/db?password=a@b",
        "postgresql://h/a@b",
        "postgresql://u:password",
        "postgresql://u:p@h/db?flag",
    ],
)
def test_what_can_be_read_in_two_ways_is_not_read(url: str) -> None:
    assert split_url(url) is None


def test_parameters_are_decoded_as_libpq_does_it() -> None:
    parts = split_url("postgresql://h/db?password=a+b%26@c&sslmode=a&sslmode=require")
    assert parts is not None
    assert parts.parameter("password") == "a+b&@c"
    assert parts.parameter("sslmode") == "require"
    assert parts.parameter("port") is None
    assert parts.has_secret_parameters


def test_a_url_is_shown_without_its_secrets() -> None:
    parts = split_url("postgresql://a%40b:p@[::1]:1,%2Frun/db?password=x&sslmode=require&y=z")
    assert (
        str(parts)
        == "postgresql://a%40b:***@[::1]:1,%2Frun/db?password=***&sslmode=require&***=***"
    )
    assert repr(parts) == f"UrlParts({str(parts)!r})"


def test_a_url_without_a_password_shows_its_user() -> None:
    assert str(split_url("postgresql://ann@h")) == "postgresql://ann@h"
