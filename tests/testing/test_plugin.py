"""The plugin: whose database it is, who makes it and when, and what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.testing.conftest import OPTIONS
from tests.testing.ends import left
from tests.testing.test_loops import ARRANGEMENTS, COUNT

if TYPE_CHECKING:
    from tests.support.postgres import RemoteServer
    from tests.testing.conftest import Project


def test_without_any_configuration_there_is_an_embedded_server(
    unconfigured: Project, place: Path
) -> None:
    test = """
    async def test_it(db_config):
        assert db_config.backend == "postgresql"
        assert db_config.connect_args()["server_settings"]["application_name"]
    """
    # With workers, in any loop: the one server is for all of them.
    unconfigured.write("test_loops.py", ARRANGEMENTS)
    result = unconfigured.passes(test, "-n2", "--shuffled=2", "--reuse-db", count=COUNT + 1)
    result.stdout.fnmatch_lines(
        ["reviewpoint_db: PostgreSQL, embedded (*--reuse-db keeps nothing*"]
    )
    assert left(place) == []


def test_without_the_embedded_server_it_is_sqlite(
    unconfigured: Project, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr("reviewpoint_db.testing.embedded.find_spec", lambda _: None)
    environment.setattr("reviewpoint_db_pytest.find_spec", lambda _: None)
    test = """
    async def test_it(db_session, db_config):
        assert db_config.backend == "sqlite"
    """
    result = unconfigured.passes(test)
    result.stdout.fnmatch_lines(["reviewpoint_db: SQLite (pip install*"])


def test_without_tables_the_error_says_what_to_give(sqlite_project: Project) -> None:
    sqlite_project.pytester.makeconftest("")
    sqlite_project.write("test_it.py", "def test_it(db_url): pass")
    result = sqlite_project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*`db_metadata`*`db_alembic_config`*"])


def test_the_seed_is_there_in_every_test_and_a_session_of_the_project_s_own_wins(
    project: Project,
) -> None:
    test = """
    import pytest
    from tests.support.apps import add, texts

    @pytest.fixture(scope="session")
    def db_seed():
        return lambda session: add(session, "seed")

    @pytest.fixture
    async def db_session(db_session):
        await add(db_session, "own")
        return db_session

    @pytest.mark.parametrize("n", range(2))
    async def test_it(db_session, n):
        assert await texts(db_session) == ["own", "seed"]
        await add(db_session, "one")
    """
    project.passes(test, count=2)


def test_the_models_base_class_stands_for_its_tables(sqlite_project: Project) -> None:
    conftest = """
    import pytest
    from sqlalchemy.orm import DeclarativeBase
    from tests.support.notes import metadata as tables

    class Base(DeclarativeBase):
        metadata = tables

    @pytest.fixture(scope="session")
    def db_metadata():
        return Base
    """
    sqlite_project.pytester.makeconftest(conftest)
    test = """
    from tests.support.apps import texts

    async def test_it(db_session):
        assert await texts(db_session) == []
    """
    sqlite_project.passes(test)
    sqlite_project.pytester.makeconftest(conftest.replace("return Base", "return [Base]"))
    result = sqlite_project.passes(test, count=0, errors=1)
    result.stdout.fnmatch_lines(["`db_metadata` returns list; *: Base.metadata*"])


def test_the_schemas_of_tables_are_made_where_there_are_some(project: Project) -> None:
    project.pytester.makeconftest(
        """
        import pytest
        from sqlalchemy import Column, Integer, MetaData, Table

        metadata = MetaData(schema="my shop")
        Table("books", metadata, Column("id", Integer, primary_key=True))
        Table("authors", metadata, Column("id", Integer, primary_key=True), schema="public")

        @pytest.fixture(scope="session")
        def db_metadata():
            return metadata
        """
    )
    test = """
    from sqlalchemy import text

    async def test_it(db_session):
        assert await db_session.scalar(text('SELECT count(*) FROM "my shop".books')) == 0
    """
    project.write("test_it.py", test)
    result = project.run()
    if "postgresql" in os.environ["REVIEWPOINT_DB_URL"]:
        result.assert_outcomes(passed=1)
    else:
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*schema 'my shop', and SQLite has no schemas*"])


def test_migrations_make_the_tables(migrated_project: Project) -> None:
    test = """
    from sqlalchemy import text

    async def test_it(db_session):
        assert await db_session.scalar(text("SELECT count(*) FROM migrated")) == 0
    """
    migrated_project.passes(test)


def test_a_migration_that_fails_is_the_error(sqlite_project: Project) -> None:
    test = """
    import pytest

    @pytest.fixture(scope="session")
    def db_alembic_config():
        return "missing.ini"

    def test_it(db_url):
        pass
    """
    sqlite_project.passes(test, count=0, errors=1)


def test_the_migrations_of_an_application_of_ours_make_the_tables(project: Project) -> None:
    test = """
    import pytest
    from sqlalchemy import text
    from example_app.app import create_app
    from reviewpoint_db.litestar import ReviewPointDBPlugin

    @pytest.fixture(scope="session")
    def db_alembic_config():
        return create_app().plugins.get(ReviewPointDBPlugin).config[0]

    async def test_it(db_session):
        await db_session.execute(text("SELECT * FROM paper"))
    """
    project.passes(test)


def test_a_test_that_does_not_ask_is_refused_where_that_is_set(project: Project) -> None:
    test = """
    import pytest
    from reviewpoint_db import Database
    from reviewpoint_db.testing import DatabaseNotRequestedError
    from tests.support.apps import texts

    async def use():
        async with Database() as database, database.session() as session:
            return await texts(session)

    async def test_without_asking():
        with pytest.raises(DatabaseNotRequestedError, match="test_without_asking touched"):
            await use()

    @pytest.mark.db
    async def test_with_the_marker():
        assert await use() == []

    async def test_with_a_fixture(db_session):
        assert await use() == []
    """
    project.passes(test, "-o", "db_strict=true", count=3)


def test_who_does_not_ask_never_reaches_the_configured_database(sqlite_project: Project) -> None:
    test = """
    import pytest
    from reviewpoint_db import Database
    from reviewpoint_db.testing import DatabaseNotRequestedError
    from tests.support.apps import texts

    async def use():
        async with Database() as database, database.session() as session:
            return await texts(session)

    async def test_before_it_is_made():
        with pytest.raises(DatabaseNotRequestedError, match="test_before_it_is_made touched"):
            await use()

    async def test_with_a_fixture(db_session):
        assert await use() == []

    async def test_in_the_worker_s():
        assert await use() == []
    """
    sqlite_project.passes(test, count=3)


def test_a_test_that_leaves_a_connection_out_fails_where_that_is_set(project: Project) -> None:
    test = """
    import pytest
    from reviewpoint_db import Database
    from reviewpoint_db.context import current_origin

    kept = []

    @pytest.fixture
    async def session():
        async with Database() as database, database.session() as session:
            yield session

    async def leave(name):
        from sqlalchemy import text
        database = Database()
        current_origin.set(name)
        session = database.open_session()
        await session.execute(text("SELECT 1"))
        kept.append((database, session))

    async def test_sandbox(db_session):
        await leave("the first culprit")

    async def test_clone(db_clone):
        await leave("the second culprit")

    async def test_neither(db_url):
        await leave("the third culprit")

    async def test_a_fixture_may_have_one_as_long_as_its_test(db_url, session):
        pass
    """
    # The sessions are lost with their loops, which the garbage collector says in its way: in a process
    # of its own, or else it would say so in whichever test of this one it comes to run.
    project.write("test_it.py", test)
    result = project.run("-o", "db_fail_on_leak=true", "-W", "ignore", subprocess=True)
    result.assert_outcomes(passed=4, errors=3)
    for number in ("first", "second", "third"):
        line = "*1 connection(s) of database 'default' did not come back*the {} culprit*"
        result.stdout.fnmatch_lines([line.format(number)])


@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_who_runs_pytest_without_the_fixtures_does_not_import_the_package(
    tmp_path: Path, workers: list[str]
) -> None:
    (tmp_path / "conftest.py").write_text(
        "import sys\n"
        "def pytest_unconfigure(): assert 'reviewpoint_db' not in sys.modules, 'imported'\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it(): assert 'reviewpoint_db' not in sys.modules\n"
        "def test_nor_sqlalchemy(): assert 'sqlalchemy' not in sys.modules\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, "-q", *workers, "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "2 passed" in done.stdout, done.stdout
    assert done.returncode == 0, done.stderr


def test_the_marker_is_known_and_the_header_names_the_server(postgres_project: Project) -> None:
    # A test that is no function has no fixtures.
    postgres_project.pytester.makeconftest(
        """
        import pytest

        class Other(pytest.Item):
            def runtest(self): pass

        class File(pytest.File):
            def collect(self): yield Other.from_parent(self, name="other")

        def pytest_collect_file(file_path, parent):
            return File.from_parent(parent, path=file_path) if file_path.suffix == ".other" else None
        """
    )
    postgres_project.write("it.other", "")
    result = postgres_project.passes("def test_it(): pass", count=2)
    result.stdout.fnmatch_lines(["reviewpoint_db: PostgreSQL at 127.0.0.1"])
    postgres_project.run("--markers").stdout.fnmatch_lines(["@pytest.mark.db: *"])


def test_a_fixture_that_has_the_name_of_ours_and_asks_for_none_is_left_alone(
    sqlite_project: Project,
) -> None:
    sqlite_project.pytester.makeconftest("")  # no tables: ours would be an error
    test = """
    import pytest
    from sqlalchemy import text
    from reviewpoint_db import Database

    @pytest.fixture
    def db_session():
        return "own"

    @pytest.fixture
    def db_config():
        return "own"

    @pytest.fixture(scope="session")
    def db_url():
        return "own"

    async def test_it(db_session, db_config, db_url):
        assert db_session == db_config == db_url == "own"
        async with Database() as database, database.session() as session:
            assert await session.scalar(text("SELECT 1")) == 1
    """
    sqlite_project.passes(test)


def test_a_server_that_is_not_there_is_one_line_and_no_more(
    unconfigured: Project, place: Path
) -> None:
    unconfigured.write("test_it.py", "def test_it(db_url): pass")
    result = unconfigured.run("--db-url=postgresql://nobody:secret@127.0.0.1:1/app")
    result.assert_outcomes(errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "* ERROR at setup of test_it *",
            "postgresql://nobody:?*@127.0.0.1:1/app does not answer (*Connect call failed*): start the server, or *",
            "* short test summary info *",
        ],
        consecutive=True,
    )
    result.stdout.no_fnmatch_line("*secret*")
    result.stderr.no_fnmatch_line("*Traceback*")
    assert left(place) == []


def test_what_the_server_refuses_says_what_to_do(
    unconfigured: Project, postgres: RemoteServer, postgres_url: str
) -> None:
    unconfigured.write("test_it.py", "def test_it(db_url): pass")
    database = postgres_url.rpartition("/")[2]
    role = f"{database}-may-nothing"
    postgres.psql(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'known'")
    try:
        for url, said in (
            (postgres.url(database, user=role, password="known"), "*may not create * CREATEDB*"),
            (postgres.url("not there"), "*does not exist*by --db-url*"),
            (
                postgres.url(database, user="nobody"),
                "*does not let its user in*: correct --db-url*",
            ),
        ):
            result = unconfigured.run(f"--db-url={url}")
            result.assert_outcomes(errors=1)
            result.stdout.fnmatch_lines([said])
            result.stdout.no_fnmatch_line("*Traceback*")
    finally:
        postgres.psql(f'DROP ROLE "{role}"')


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:///x", "SQLite"),
        ("postgresql:///app", "PostgreSQL at localhost"),
        ("postgresql://me:it@db.example/app", "PostgreSQL at db.example"),
        ("postgresql://me:se/cret@db.example/app", "PostgreSQL"),
        ("postgresql://me:[@db.example/app", "PostgreSQL"),
    ],
)
def test_the_header_has_nothing_of_a_password(unconfigured: Project, url: str, name: str) -> None:
    result = unconfigured.run("--co", f"--db-url={url}")
    result.stdout.fnmatch_lines([f"reviewpoint_db: {name}"])
