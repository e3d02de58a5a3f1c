"""`--reuse-db` and `--create-db`: what is kept, what is made anew, and how changes are noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.testing.ends import databases_of_tests, left

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import RemoteServer
    from tests.testing.conftest import Project

#: A test that stores something for good, and finds nothing of what an earlier run stored.
KEEPS = """
from sqlalchemy import text
from reviewpoint_db import Database

async def test_it(db_url):
    async with Database() as database, database.session() as session:
        found = await session.scalar(text("SELECT count(*) FROM notes"))
        await session.execute(text("INSERT INTO notes (text) VALUES (:text)"), {"text": str(found)})
        await session.commit()
    assert found == 0
"""
#: Each test in each of two workers.
TWO = ["-n2", "--dist=each"]
#: Counts how often the template is filled.
SEED = """

@pytest.fixture(scope="session")
def db_seed(pytestconfig):
    async def seed(session):
        with (pytestconfig.rootpath / "filled").open("a") as file:
            file.write("once ")
    return seed
"""
CHANGED = """

from sqlalchemy import Column, Enum, Integer, MetaData, String, Table

metadata = MetaData()
Table(
    "notes", metadata, Column("id", Integer, primary_key=True),
    Column("text", String(100), unique=True), Column("follows", Integer),
    Column("state", Enum(STATES, name="state")),
)
"""


@pytest.fixture
def database_url(database_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """What these runs keep on the server, this removes."""
    yield database_url
    if database_url.startswith("postgres"):
        server: RemoteServer = request.getfixturevalue("postgres")
        for name in databases_of_tests(server, database_url):
            server.drop_database(name)


def finds(project: Project, filled: int, *arguments: str, test: str = KEEPS) -> None:
    """Runs the test, in each of the workers; the template was filled so many times until now."""
    if SEED not in (project.pytester.path / "conftest.py").read_text():
        append(project, SEED)
    project.write("test_it.py", test)
    project.run(*arguments).assert_outcomes(passed=2 if "-n2" in arguments else 1)
    assert fillings(project) == filled


def fillings(project: Project) -> int:
    return len((project.pytester.path / "filled").read_text().split())


def append(project: Project, text: str) -> None:
    with (project.pytester.path / "conftest.py").open("a") as file:
        file.write(text)


def test_databases_are_kept_and_made_anew_as_asked(project: Project) -> None:
    finds(project, 1, "--reuse-db")
    finds(project, 1, "--reuse-db")
    finds(project, 2, "--reuse-db", "--create-db")
    finds(project, 2, "--reuse-db")
    finds(project, 3, "--create-db")
    # A run that keeps nothing takes away what an earlier one kept on the server.
    finds(project, 4)


def test_databases_of_two_workers_are_kept_until_the_tables_change(
    project: Project, request: pytest.FixtureRequest
) -> None:
    finds(project, 1, "--reuse-db", *TWO)  # by whichever worker came first
    finds(project, 1, "--reuse-db", *TWO)
    if "postgresql" in request.node.name:  # a run of two workers takes seconds
        append(project, CHANGED.replace("STATES", "'open'"))
        finds(project, 2, "--reuse-db", *TWO)


def test_changed_tables_are_noticed_wherever_they_change(project: Project) -> None:
    append(project, CHANGED.replace("STATES", "'open', 'done'"))
    finds(project, 1, "--reuse-db")
    finds(project, 1, "--reuse-db")
    append(
        project, "\nfrom sqlalchemy import Index\nIndex('i', metadata.tables['notes'].c.follows)\n"
    )
    finds(project, 2, "--reuse-db")
    conftest = project.pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace("'done'", "'shut'"))
    finds(project, 3, "--reuse-db")
    finds(project, 3, "--reuse-db")


def test_changed_migrations_are_noticed(migrated_project: Project) -> None:
    test = KEEPS.replace("notes (text) VALUES (:text)", "migrated (id) VALUES (:text)")
    test = test.replace("notes", "migrated").replace("str(found)", "found")
    finds(migrated_project, 1, "--reuse-db", test=test)
    finds(migrated_project, 1, "--reuse-db", test=test)
    versions = migrated_project.pytester.path / "migrations" / "versions"
    second = (versions / "one.py").read_text().replace('"1", None', '"2", "1"')
    (versions / "two.py").write_text(second.replace('"migrated"', '"further"'))
    finds(migrated_project, 2, "--reuse-db", test=test)
    finds(migrated_project, 2, "--reuse-db", test=test)


def test_files_are_kept_where_pytest_has_no_cache(sqlite_project: Project) -> None:
    finds(sqlite_project, 1, "--reuse-db", "-p", "no:cacheprovider")
    finds(sqlite_project, 1, "--reuse-db", "-p", "no:cacheprovider")


def test_clones_that_a_killed_run_left_are_dropped_though_its_databases_are_kept(
    sqlite_project: Project,
) -> None:
    test = """
    def test_it(db_clone, pytestconfig):
        print("files", *sorted(path.name for path in kept(pytestconfig).glob("*.sqlite3")))

    def kept(config):
        return config.cache.mkdir("reviewpoint_db")
    """
    sqlite_project.write("test_it.py", test)
    files = "files test_main.sqlite3 test_main_clone1.sqlite3 test_template.sqlite3"
    sqlite_project.run("-s", "--reuse-db").stdout.fnmatch_lines([f"*{files}*"])
    [folder] = sqlite_project.pytester.path.glob(".pytest_cache/d/reviewpoint_db")
    (folder / "test_main_clone7.sqlite3").touch()
    sqlite_project.run("-s", "--reuse-db").stdout.fnmatch_lines([f"*{files}*"])


@pytest.mark.parametrize("workers", [[], TWO])
def test_the_embedded_server_ends_with_its_run_and_says_so(
    unconfigured: Project, place: Path, workers: list[str]
) -> None:
    append(unconfigured, SEED)
    unconfigured.write("test_it.py", KEEPS)
    result = unconfigured.run("--reuse-db", "--create-db", *workers)
    result.assert_outcomes(passed=2 if workers else 1)
    result.stdout.fnmatch_lines(
        ["reviewpoint_db: PostgreSQL, embedded (*--reuse-db keeps nothing*"]
    )
    assert fillings(unconfigured) == 1
    assert left(place) == []
