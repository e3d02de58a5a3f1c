"""Who may see the guarded routes."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.endpoints.access import TOKEN_VARIABLE, Access
from reviewpoint_db.errors import ConfigurationError

DEV = DatabaseConfig(url="sqlite:///a.sqlite3", environment="dev")
PROD = DatabaseConfig(url="sqlite:///a.sqlite3", environment="prod")
TOKEN = "a token: with ü and ="


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_in_dev_and_test_the_routes_are_open() -> None:
    for environment in ("dev", "test"):
        config = DatabaseConfig(url="sqlite:///a.sqlite3", environment=environment)
        access = Access(config, guards_given=False, debug_token=None)
        assert access.mounted
        assert access.check(None) is None


def test_in_prod_there_are_no_routes() -> None:
    assert not Access(PROD, guards_given=False, debug_token=None).mounted


def test_in_prod_guards_bring_the_routes_and_decide() -> None:
    access = Access(PROD, guards_given=True, debug_token=None)
    assert access.mounted
    assert access.check(None) is None


@pytest.mark.parametrize("config", [DEV, PROD])
def test_a_token_brings_the_routes_and_is_asked_for(config: DatabaseConfig) -> None:
    access = Access(config, guards_given=False, debug_token=TOKEN)
    assert access.mounted
    assert access.check(None) is not None


def test_the_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "from outside")
    access = Access(PROD, guards_given=False, debug_token=None)
    assert access.mounted
    assert access.check("Bearer from outside") is None
    assert access.check("Bearer other") is not None


def test_the_token_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from a file\n")
    monkeypatch.setenv(f"{TOKEN_VARIABLE}_FILE", str(file))
    assert DatabaseConfig.from_env().url is None  # which takes the variable for no typo
    access = Access(PROD, guards_given=False, debug_token=None)
    assert access.check("Bearer from a file") is None
    assert access.check("Bearer other") is not None


@pytest.mark.parametrize(
    ("content", "token", "problem"),
    [
        (
            "s3cret",
            "s3cret",
            "REVIEWPOINT_DB_DEBUG_TOKEN = \\*\\*\\*: REVIEWPOINT_DB_DEBUG_TOKEN_FILE is ",
        ),
        (" s3cret", "", "REVIEWPOINT_DB_DEBUG_TOKEN_FILE is empty or has white space around it"),
        ("", "", "REVIEWPOINT_DB_DEBUG_TOKEN_FILE = '.*/token': the file is empty"),
        (None, "", "REVIEWPOINT_DB_DEBUG_TOKEN_FILE = '.*/token': the file cannot be read"),
    ],
)
def test_a_file_that_gives_no_token_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, token: str, problem: str
) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    monkeypatch.setenv(f"{TOKEN_VARIABLE}_FILE", str(tmp_path / "token"))
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    with pytest.raises(ConfigurationError, match=f"^{problem}") as refused:
        Access(PROD, guards_given=False, debug_token=None)
    assert "s3cret" not in str(refused.value)


def test_the_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "from outside")
    access = Access(PROD, guards_given=False, debug_token="given")
    assert access.check("Bearer from outside") is not None
    assert access.check("Bearer given") is None


def test_an_empty_variable_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    assert not Access(PROD, guards_given=False, debug_token=None).mounted


@pytest.mark.parametrize("token", ["", " ", "x ", "\tx"])
def test_a_token_that_nobody_could_send_is_refused(token: str) -> None:
    with pytest.raises(ConfigurationError, match="debug_token"):
        Access(PROD, guards_given=False, debug_token=token)


def test_a_refused_token_of_the_environment_names_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, " s3cret")
    with pytest.raises(ConfigurationError, match=TOKEN_VARIABLE) as refused:
        Access(PROD, guards_given=False, debug_token=None)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {TOKEN}",
        f"bearer   {TOKEN} ",
        # As a server decodes the bytes that a client sent as UTF-8.
        f"Bearer {TOKEN}".encode().decode("latin-1"),
        basic("", TOKEN),
        basic("anybody", TOKEN),
        basic("anybody", TOKEN).replace("Basic", "BASIC"),
    ],
)
def test_the_token_lets_in(authorization: str) -> None:
    access = Access(PROD, guards_given=False, debug_token=TOKEN)
    if "ü" in authorization:
        authorization = authorization.encode().decode("latin-1")
    assert access.check(authorization) is None


def test_a_header_that_was_decoded_as_utf_8_lets_in() -> None:
    access = Access(PROD, guards_given=False, debug_token="token €")
    assert access.check("Bearer token €") is None


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Digest {TOKEN}",
        TOKEN,
        "Basic",
        "Basic ???",
        "Basic YQ",
        basic(TOKEN, ""),
        "Basic " + base64.b64encode(TOKEN.replace(":", "").encode()).decode(),
    ],
)
def test_anything_else_is_a_401_that_says_nothing_of_us(authorization: str | None) -> None:
    reply = Access(PROD, guards_given=False, debug_token=TOKEN).check(authorization)
    assert reply is not None
    assert (reply.status, reply.body) == (401, b'{"status_code":401,"detail":"Unauthorized"}')
    assert reply.headers["www-authenticate"].startswith("Basic ")
    assert reply.headers["cache-control"] == "no-store"
    told = (reply.body.decode() + repr(reply.headers)).lower()
    assert not any(word in told for word in ("database", "reviewpoint", "sqlite", "token"))


@given(st.text())
def test_no_text_but_the_token_lets_in(text: str) -> None:
    access = Access(PROD, guards_given=False, debug_token=TOKEN)
    assert access.check(text) is not None
    assert access.check(f"Bearer {text}") is not None
    assert access.check(f"Basic {text}") is not None
