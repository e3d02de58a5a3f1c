"""`ReviewPointDBPlugin`: what one line gives, what it refuses, and two of them side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from advanced_alchemy.extensions.litestar import (
    AlembicAsyncConfig,
    SQLAlchemyInitPlugin,
    SQLAlchemyPlugin,
    SQLAlchemySyncConfig,
)
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig as TheirConfig
from litestar import Litestar, get
from litestar.exceptions import NotAuthorizedException
from sqlalchemy import MetaData, text
from sqlalchemy.orm import DeclarativeBase

from reviewpoint_db import logs
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.litestar import (
    ReadSessionDep,
    ReviewPointDBPlugin,
    SessionDep,
    SQLAlchemyAsyncConfig,
)
from tests.support.asgi import client, running

if TYPE_CHECKING:
    from pathlib import Path

MEMORY = DatabaseConfig(url="sqlite:///:memory:")


def nobody(connection: Any, handler: Any) -> None:
    raise NotAuthorizedException


@get("/")
async def answer(db_session: SessionDep) -> dict[str, int]:
    return {"answer": (await db_session.execute(text("select 42"))).scalar_one()}


async def test_without_any_configuration_it_runs_on_an_embedded_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("REVIEWPOINT_DB_URL", "DATABASE_URL", "REVIEWPOINT_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    plugin = ReviewPointDBPlugin()
    app = Litestar([answer], plugins=[plugin])
    async with running(app), client(app) as http:
        assert (await http.get("/")).json() == {"answer": 42}
        assert (await http.get("/db/health")).json()["status"] == "healthy"
        assert (await http.get("/db/health/live")).status_code == 200
        assert (await http.get("/db/health/ready")).status_code == 200
        debug = (await http.get("/db/debug")).json()
    assert debug["engine_creation_count"] == 1
    assert (tmp_path / "reviewpoint.sqlite3").exists()
    assert app.state.databases == {"default": plugin.database}


async def test_the_same_program_runs_on_postgresql(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWPOINT_DB_URL", postgres_url)
    app = Litestar([answer], plugins=[ReviewPointDBPlugin()])
    async with running(app), client(app) as http:
        assert (await http.get("/")).json() == {"answer": 42}


async def test_it_lets_the_log_lines_through(lines: list[str]) -> None:
    logs.disable()
    app = Litestar([answer], plugins=[ReviewPointDBPlugin(MEMORY)])
    async with running(app):
        pass
    assert lines


async def test_two_databases_live_in_one_application(sqlite_url: str, postgres_url: str) -> None:
    @get("/both")
    async def both(
        db_session: SessionDep,
        db_read_session: ReadSessionDep,
        reports: SessionDep,
        r: ReadSessionDep,
    ) -> list[Any]:
        return [
            await db_session.scalar(text("select 1 where sqlite_version() is not null")),
            await db_read_session.scalar(text("select 2 where sqlite_version() is not null")),
            (await reports.scalar(text("select version()"))).split()[0],
            (await r.scalar(text("select version()"))).split()[0],
        ]

    first = ReviewPointDBPlugin(DatabaseConfig(url=sqlite_url))
    second = ReviewPointDBPlugin(
        DatabaseConfig(url=postgres_url, name="reports"),
        path="/reports-db",
        session_key="reports",
        read_session_key="r",
    )
    app = Litestar([both], plugins=[first, second])
    async with running(app), client(app) as http:
        assert (await http.get("/both")).json() == [1, 2, "PostgreSQL", "PostgreSQL"]
        assert (await http.get("/db/debug")).json()["name"] == "default"
        assert (await http.get("/reports-db/debug")).json()["name"] == "reports"
    assert app.state.databases == {"default": first.database, "reports": second.database}
    assert second.databases == {"reports": second.database}
    # The one that advanced-alchemy's commands find knows both.
    assert [config.bind_key for config in app.plugins.get(SQLAlchemyInitPlugin).config] == [
        None,
        "reports",
    ]


def reports(**settings: Any) -> ReviewPointDBPlugin:
    """A second plugin that differs in everything from the first, but for what a test gives."""
    given = {
        "config": DatabaseConfig(url="sqlite:///two.sqlite3", name="reports"),
        "path": "/two",
        "session_key": "two",
        "read_session_key": "two_read",
    }
    return ReviewPointDBPlugin(**{**given, **settings})


def test_two_of_one_name_are_refused_and_both_are_named() -> None:
    first = ReviewPointDBPlugin(DatabaseConfig(url="postgresql://ann:secret@localhost/papers"))
    second = reports(config=DatabaseConfig(url="sqlite:///two.sqlite3"), path=None)
    with pytest.raises(ConfigurationError) as refusal:
        Litestar([], plugins=[first, second])
    message = str(refusal.value)
    assert "same name" in message
    assert "postgresql://ann:***@localhost/papers, path='/db'" in message
    assert "two.sqlite3, no routes" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("same", "what"),
    [
        ({"path": "/db"}, "path"),
        ({"session_key": "db_session"}, "session key"),
        ({"read_session_key": "db_read_session"}, "session key"),
        ({"session_key": "db_read_session"}, "session key"),
    ],
)
def test_two_at_one_path_or_key_are_refused(same: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"same {what}.*'default'.*'reports'"):
        Litestar([], plugins=[ReviewPointDBPlugin(MEMORY), reports(**same)])


def test_one_plugin_serves_many_applications() -> None:
    plugin = ReviewPointDBPlugin(MEMORY)
    apps = [Litestar([answer], plugins=[plugin]) for _ in range(3)]
    assert all(app.state.databases == {"default": plugin.database} for app in apps)


def test_a_typo_in_who_commits_is_refused() -> None:
    commit: Any = "auto_commit"
    with pytest.raises(ConfigurationError, match="commit = 'auto_commit': unknown"):
        ReviewPointDBPlugin(MEMORY, commit=commit)


@pytest.mark.parametrize("path", ["db", "/db/{name:str}", ""])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="no place for routes"):
        ReviewPointDBPlugin(MEMORY, path=path)


class Base(DeclarativeBase):
    pass


@pytest.mark.parametrize(
    ("argument", "value", "problem"),
    [
        ("guards", nobody, "guards = a function: not a list. Fix: give a list: guards=[...]."),
        ("guards", "nobody", "guards = a str: not a list."),
        ("guards", [nobody, 3], "guards = a list with a int: not callable."),
        ("debug_token", 3, "debug_token = a int: not a string."),
        ("path", 3, "path=3 is no place for routes"),
        ("metadata", Base, "metadata = the class Base: not a MetaData. Fix: give Base.metadata."),
        ("metadata", [MetaData()], "metadata = a list: not a MetaData."),
        ("session_key", 3, "session_key = 3: no parameter has such a name."),
        ("read_session_key", "my session", "read_session_key = 'my session': no parameter"),
        ("alembic_config", "migrations", "alembic_config = a str: not an AlembicAsyncConfig."),
        ("config", "postgresql://ann:s3cret@h/db", "give a reviewpoint_db.DatabaseConfig(url="),
    ],
)
def test_an_argument_of_the_wrong_kind_is_refused(argument: str, value: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ReviewPointDBPlugin(**({"config": MEMORY} | {argument: value}))
    assert problem in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_the_class_in_the_place_of_a_plugin_is_refused() -> None:
    plugins: Any = [ReviewPointDBPlugin]
    with pytest.raises(ConfigurationError, match=r"Fix: .* \[ReviewPointDBPlugin\(\)\]"):
        Litestar([], plugins=plugins)


@pytest.mark.parametrize(
    ("path", "found"), [("/", "/health"), ("/a/b/", "/a/b/health"), (None, None)]
)
async def test_routes_may_be_elsewhere_or_nowhere(path: str | None, found: str | None) -> None:
    app = Litestar([], plugins=[ReviewPointDBPlugin(MEMORY, path=path)])
    async with running(app), client(app) as http:
        assert (await http.get("/db/health")).status_code == 404
        if found:
            assert (await http.get(found)).status_code == 200


@pytest.mark.parametrize(
    "config",
    [
        [],
        "sqlite:///one.sqlite3",
        TheirConfig(connection_string="sqlite+aiosqlite:///one.sqlite3"),
        SQLAlchemySyncConfig(connection_string="sqlite:///one.sqlite3"),
    ],
)
def test_configurations_that_are_not_ours_are_refused(config: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"SQLAlchemyAsyncConfig from reviewpoint_db"):
        ReviewPointDBPlugin(config)


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        ({"session_key": "s"}, "session_dependency_key"),
        ({"read_session_key": "r"}, "session_dependency_key"),
        ({"commit": "autocommit"}, "before_send_handler"),
        ({"metadata": MetaData()}, "metadata"),
        ({"create_all": True}, "create_all"),
        ({"alembic_config": AlembicAsyncConfig()}, "alembic_config"),
    ],
)
def test_what_a_configuration_says_itself_is_not_said_twice(
    given: dict[str, Any], instead: str
) -> None:
    alchemy = SQLAlchemyAsyncConfig(connection_string="sqlite+aiosqlite:///one.sqlite3")
    with pytest.raises(ConfigurationError, match=f"set its {instead} instead"):
        ReviewPointDBPlugin(alchemy, **given)


def test_it_is_an_advanced_alchemy_plugin() -> None:
    assert isinstance(ReviewPointDBPlugin(MEMORY), SQLAlchemyPlugin)
