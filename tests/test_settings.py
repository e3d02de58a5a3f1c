"""The environment's variables, each to its field, or refused by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

PG = "postgresql://ann:secret@localhost/papers"


def refusal(**variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        DatabaseConfig.from_env(variables)
    assert "Fix: " in str(caught.value)
    assert "secret" not in str(caught.value)
    return str(caught.value)


def test_an_empty_environment_is_the_default() -> None:
    assert DatabaseConfig.from_env({}) == DatabaseConfig()
    assert DatabaseConfig.from_env({"REVIEWPOINT_DB_URL": "", "DATABASE_URL": " "}).url is None


def test_the_url_comes_from_our_variable_or_the_usual_one() -> None:
    usual = {"DATABASE_URL": "sqlite:///usual.db"}
    assert DatabaseConfig.from_env(usual).url == "sqlite:///usual.db"
    assert DatabaseConfig.from_env(usual | {"REVIEWPOINT_DB_URL": f" {PG}\n"}).url == PG


def test_the_variables_of_this_process_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEWPOINT_DB_URL", "sqlite:///process.db")
    assert DatabaseConfig.from_env().url == "sqlite:///process.db"
    assert DatabaseConfig().url is None


def test_every_kind_of_field() -> None:
    config = DatabaseConfig.from_env(
        {
            "REVIEWPOINT_DB_URL": PG,
            "REVIEWPOINT_DB_READ_URL": "postgresql://replica/papers",
            "REVIEWPOINT_ENVIRONMENT": "prod",
            "REVIEWPOINT_DB_NAME": "main",
            "REVIEWPOINT_DB_QUERY_TIMEOUT": "2.5",
            "REVIEWPOINT_DB_EXPECTED_PROCESSES": "4",
            "REVIEWPOINT_DB_ENGINE_OPTIONS": '{"echo": true}',
            "REVIEWPOINT_DB_POOL_SIZE": "3",
            "REVIEWPOINT_DB_POOL_TIMEOUT": "1",
            "REVIEWPOINT_DB_POOL_RESET_ON_RETURN": "commit",
            "REVIEWPOINT_DB_DEBUG_TOKEN": "secret",
        }
    )
    assert config == DatabaseConfig(
        url=PG,
        read_url="postgresql://replica/papers",
        environment="prod",
        name="main",
        query_timeout=2.5,
        expected_processes=4,
        engine_options={"echo": True},
        pool=PoolConfig(size=3, timeout=1.0, reset_on_return="commit"),
    )


@pytest.mark.parametrize(
    ("value", "observe"), [("1", True), ("True", True), ("off", False), ("false", False)]
)
def test_a_switch_is_read_from_a_word(value: str, observe: bool) -> None:
    assert DatabaseConfig.from_env({"REVIEWPOINT_DB_OBSERVE": value}).observe is observe


def test_a_word_that_is_no_switch_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="REVIEWPOINT_DB_OBSERVE = 'maybe': not a switch"):
        DatabaseConfig.from_env({"REVIEWPOINT_DB_OBSERVE": "maybe"})


def test_one_limit_of_the_pool_leaves_its_size_to_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    config = DatabaseConfig.from_env(
        {
            "REVIEWPOINT_DB_URL": PG,
            "REVIEWPOINT_ENVIRONMENT": "prod",
            "REVIEWPOINT_DB_POOL_TIMEOUT": "1",
        }
    )
    assert (config.effective_pool.size, config.effective_pool.timeout) == (10, 1.0)


def test_a_secret_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{PG}\n", encoding="utf-8")
    assert DatabaseConfig.from_env({"REVIEWPOINT_DB_URL_FILE": str(file)}).url == PG
    message = refusal(REVIEWPOINT_DB_URL_FILE=str(file), REVIEWPOINT_DB_URL=PG)
    assert "take one of the two out" in message


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    message = refusal(REVIEWPOINT_DB_URL_FILE=str(tmp_path / "nowhere"))
    assert message.startswith("REVIEWPOINT_DB_URL_FILE = ")
    assert "cannot be read (FileNotFoundError)" in message
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert "is empty" in refusal(REVIEWPOINT_DB_URL_FILE=str(tmp_path / "empty"))
    (tmp_path / "binary").write_bytes(b"\xff")
    assert "UnicodeDecodeError" in refusal(REVIEWPOINT_DB_URL_FILE=str(tmp_path / "binary"))


def test_a_password_is_asked_for_again_at_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n", encoding="utf-8")
    variables = {"REVIEWPOINT_DB_URL": "postgresql://ann@localhost/papers"}
    config = DatabaseConfig.from_env(variables | {"REVIEWPOINT_DB_PASSWORD_FILE": str(file)})
    assert config.password is not None
    assert config.password() == "old"
    file.write_text("new\n", encoding="utf-8")
    assert config.password() == "new"
    config = DatabaseConfig.from_env(variables | {"REVIEWPOINT_DB_PASSWORD": "secret"})
    assert config.password is not None
    assert config.password() == "secret"
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("REVIEWPOINT_DB_QUERY_TIMEOUT", "soon", "not a number of seconds"),
        ("REVIEWPOINT_DB_POOL_SIZE", "1.5", "not a whole number"),
        ("REVIEWPOINT_DB_POOL_SIZE", "-1", "pool.size = -1: too small"),
        ("REVIEWPOINT_DB_SESSION_CLASS", "x:Y", "give it in the code"),
        ("REVIEWPOINT_DB_ENGINE_OPTIONS", "{secret", "not a JSON object"),
        ("REVIEWPOINT_DB_ENGINE_OPTIONS", "[]", "not a JSON object"),
        ("REVIEWPOINT_DB_POOL_SIZ", "3", "did you mean REVIEWPOINT_DB_POOL_SIZE?"),
        ("REVIEWPOINT_ENVIROMENT", "prod", "did you mean REVIEWPOINT_ENVIRONMENT?"),
        ("REVIEWPOINT_DB_ENVIRONMENT", "prod", "set REVIEWPOINT_ENVIRONMENT"),
        ("REVIEWPOINT_ENVIRONMENT", "production", "use one of dev, test, prod"),
        ("REVIEWPOINT_DB_URL", "mysql://ann:secret@h/db", "the driver mysql"),
    ],
)
def test_a_wrong_variable_is_refused(name: str, value: str, problem: str) -> None:
    assert problem in refusal(**{name: value})


def test_a_fix_that_is_a_question_ends_as_one() -> None:
    assert refusal(REVIEWPOINT_DB_POOL_SIZ="3").endswith("did you mean REVIEWPOINT_DB_POOL_SIZE?")
    assert refusal(REVIEWPOINT_DB_POOL_SIZE="-1").endswith(".")


def test_the_variables_of_other_programs_are_left_alone() -> None:
    """Kubernetes adds these for a service called reviewpoint-db."""
    variables = {
        "REVIEWPOINT_DB_SERVICE_HOST": "10.0.0.1",
        "REVIEWPOINT_DB_PORT": "tcp://10.0.0.1:5432",
        "REVIEWPOINT_DB_PORT_5432_TCP_ADDR": "10.0.0.1",
    }
    assert DatabaseConfig.from_env(variables) == DatabaseConfig()


def test_production_without_a_url_is_refused() -> None:
    assert "production needs" in refusal(REVIEWPOINT_ENVIRONMENT="prod")
