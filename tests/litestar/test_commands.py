"""`litestar database ...` and `litestar reviewpoint-db ...` on the plugin's database."""

from __future__ import annotations

import itertools
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from litestar.cli.main import litestar_group

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NAMES = (f"litestar_commands_{number}" for number in itertools.count())

OURS = """
plugin = ReviewPointDBPlugin(
    DatabaseConfig(url="sqlite:///papers.sqlite3"),
    metadata=metadata,
    alembic_config=AlembicAsyncConfig(script_location="changes"),
)
"""
ALCHEMYS = """
plugin = ReviewPointDBPlugin(
    SQLAlchemyAsyncConfig(
        connection_string="sqlite+aiosqlite:///papers.sqlite3",
        metadata=metadata,
        alembic_config=AlembicAsyncConfig(script_location="changes"),
    )
)
"""


@pytest.fixture(params=[OURS, ALCHEMYS], ids=["ours", "alchemy"])
def litestar(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., str]:
    """Runs `litestar --app ... <arguments>` in an empty folder and returns the output."""
    name = next(_NAMES)
    (tmp_path / f"{name}.py").write_text(
        dedent(
            """
            from advanced_alchemy.extensions.litestar import AlembicAsyncConfig
            from litestar import Litestar
            from sqlalchemy import Column, Integer, MetaData, Table
            from reviewpoint_db.config import DatabaseConfig
            from reviewpoint_db.litestar import ReviewPointDBPlugin, SQLAlchemyAsyncConfig

            metadata = MetaData()
            papers = Table("papers", metadata, Column("id", Integer, primary_key=True))
            """
        )
        + request.param
        + "app = Litestar([], plugins=[plugin])\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*arguments: str, status: int = 0) -> str:
        # A process runs one command; the group remembers that it has asked its application.
        monkeypatch.setattr(litestar_group, "_prepare_done", False)
        command = ["--app", f"{name}:app", *arguments]
        # Commands run event loops: not in this thread, whose loop is pytest-asyncio's.
        with ThreadPoolExecutor(1) as thread:
            result = thread.submit(CliRunner().invoke, litestar_group, command).result()
        assert result.exit_code == status, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.output

    return run


def ask(query: str) -> list[str]:
    connection = sqlite3.connect("papers.sqlite3")
    found = [name for (name,) in connection.execute(query)]
    connection.close()
    return found


def tables() -> set[str]:
    return set(ask("select name from sqlite_master"))


def revision() -> str | None:
    return next(iter(ask("select version_num from alembic_versions")), None)


@pytest.mark.filterwarnings("ignore:No path_separator")  # in advanced-alchemy's alembic.ini
def test_migrations(litestar: Callable[..., str]) -> None:
    litestar("database", "init", "changes", "--no-prompt")
    litestar("database", "make-migrations", "--no-prompt", "-m", "first")
    litestar("database", "upgrade", "--no-prompt")
    assert {"papers", "alembic_versions"} <= tables()
    assert "Listing current revision" in litestar("database", "show-current-revision")
    assert revision() is not None
    litestar("database", "downgrade", "--no-prompt", "base")
    assert "papers" not in tables()
    assert revision() is None


@pytest.mark.filterwarnings("ignore:No path_separator")  # in advanced-alchemy's alembic.ini
def test_an_error_of_the_migrations_is_told_without_a_traceback(
    litestar: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = litestar("db", "show-current-revision", status=1)
    assert "Path doesn't exist: changes" in told
    litestar("database", "init", "changes", "--no-prompt")
    (tmp_path / "papers.sqlite3").mkdir()
    told = " ".join(litestar("database", "upgrade", "--no-prompt", status=1).split())
    assert "papers.sqlite3 cannot be reached" in told
    assert "Traceback" not in told


def test_our_own_commands(litestar: Callable[..., str]) -> None:
    assert "healthy" in litestar("reviewpoint-db", "health")
    assert "The checks passed" in litestar("reviewpoint-db", "check")
