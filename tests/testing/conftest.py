"""Runs of pytest inside of a test, with the plugin and a project of a few files."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# The inner runs forget the modules that they import: these are to be the same in all of them.
import example_app.app  # noqa: F401
import reviewpoint_db.testing.kit  # noqa: F401
import reviewpoint_db_pytest  # noqa: F401
import tests.support.apps  # noqa: F401
from reviewpoint_db_pytest.run import roomy_folder
from tests.support.server import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFTEST = """
import random

import pytest

from tests.support.notes import metadata


@pytest.fixture(scope="session")
def db_metadata():
    return metadata


def pytest_addoption(parser):
    parser.addoption("--shuffled", type=int, default=None)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--shuffled") is not None:
        random.Random(config.getoption("--shuffled")).shuffle(items)
"""

INI = """
[pytest]
filterwarnings =
    error
    ignore:The declarative_mixin decorator was used only
    ignore:.*will stop working in Litestar 3
    ignore:Module already imported so cannot be rewritten
    ignore:Using .httpx. with
    ignore:The anyio.abc.BlockingPortal alias
"""

# Before 1.1, pytest-asyncio leaves loops to the garbage collector, which finds them in a later run.
if tuple(map(int, version("pytest-asyncio").split(".")[:2])) < (1, 1):
    INI += r"""
    ignore:unclosed event loop
    ignore:unclosed <socket.socket fd=\d+, family=1, type=1
""".removeprefix("\n")

#: Importing hypothesis, to say nothing at the end, takes longer than most of these runs.
OPTIONS = ("-p", "reviewpoint_db_pytest", "-p", "no:hypothesispytest")

ASYNCIO = """
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
asyncio_default_test_loop_scope = function
"""

MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "1", None

def upgrade():
    op.create_table("migrated", sa.Column("id", sa.Integer, primary_key=True))
"""

ENV = """
import asyncio
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

def migrate(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = create_async_engine(context.config.get_main_option("sqlalchemy.url"))
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()

asyncio.run(main())
"""


class Project:
    """A project whose tests use the plugin."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        pytester.makeini(INI + ASYNCIO)
        pytester.makeconftest(CONFTEST)

    def write(self, name: str, text: str) -> None:
        (self.pytester.path / name).write_text(textwrap.dedent(text))

    def run(self, *arguments: str, subprocess: bool = False) -> pytest.RunResult:
        run = (
            self.pytester.runpytest_subprocess if subprocess else self.pytester.runpytest_inprocess
        )
        return run(*OPTIONS, *arguments)

    def passes(self, test: str, *arguments: str, count: int = 1, **others: int) -> pytest.RunResult:
        """Writes the test file and runs it; so many tests must pass, and no other outcome be."""
        self.write("test_it.py", test)
        result = self.run(*arguments)
        result.assert_outcomes(passed=count, **others)
        return result


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of an inner run: nothing of the outer one's but the path of this project."""
    for variable in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS", "REVIEWPOINT_DB_URL", "DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return monkeypatch


@pytest.fixture
def unconfigured(pytester: pytest.Pytester, environment: pytest.MonkeyPatch) -> Project:
    """A project without any configuration."""
    return Project(pytester)


@pytest.fixture
def project(unconfigured: Project, environment: pytest.MonkeyPatch, database_url: str) -> Project:
    """A project whose application is configured by the environment, once for each database."""
    environment.setenv("REVIEWPOINT_DB_URL", database_url)
    return unconfigured


@pytest.fixture
def postgres_project(
    unconfigured: Project, environment: pytest.MonkeyPatch, postgres_url: str
) -> Project:
    """The same on PostgreSQL alone."""
    environment.setenv("REVIEWPOINT_DB_URL", postgres_url)
    return unconfigured


@pytest.fixture
def sqlite_project(
    unconfigured: Project, environment: pytest.MonkeyPatch, sqlite_url: str
) -> Project:
    """The same on SQLite alone."""
    environment.setenv("REVIEWPOINT_DB_URL", sqlite_url)
    return unconfigured


@pytest.fixture
def place(environment: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the runs of this test have their folders, and nobody else's."""
    # Not in tmp_path: the server's user cannot reach that.
    folder = Path(tempfile.mkdtemp(prefix="reviewpoint-place-", dir=roomy_folder()))
    folder.chmod(0o755)
    environment.setenv("TMPDIR", str(folder))
    environment.setattr("tempfile.tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def migrated_project(project: Project) -> Project:
    """A project whose tables are made by a migration of alembic's."""
    folder = project.pytester.mkdir("migrations")
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(ENV)
    (folder / "versions" / "one.py").write_text(MIGRATION)
    (project.pytester.path / "alembic.ini").write_text(
        "[alembic]\nscript_location = migrations\npath_separator = os\n"
    )
    conftest = CONFTEST.replace(
        "db_metadata():\n    return metadata", 'db_alembic_config():\n    return "alembic.ini"'
    )
    project.pytester.makeconftest(conftest)
    return project
