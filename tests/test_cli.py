"""The commands."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pytest
from click.testing import CliRunner, Result

from reviewpoint_db.cli import Target, main
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ConfigurationError
from tests.support.postgres import PASSWORD, PostgresServer, free_port

Run = Callable[..., Result]

PROGRAM = (sys.executable, "-c", "from reviewpoint_db.cli import main; main()")
PASSWORD_IN_URLS = quote(PASSWORD, safe="")

# The alembic.ini of advanced-alchemy's template is older than alembic's option for it.
pytestmark = pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning")

APPLICATIONS = """
import os
from builtins import ZeroDivisionError
from fastapi import FastAPI
from litestar import Litestar
from reviewpoint_db import Database, DatabaseConfig
from reviewpoint_db.checks import Finding
from reviewpoint_db.fastapi import setup_database
from reviewpoint_db.litestar import ReviewPointDBPlugin

config = DatabaseConfig(url=os.environ["URL"], environment="dev")
database = Database(config)
nothing = FastAPI()
fast = FastAPI()
setup_database(fast, config)
archive = setup_database(
    fast, DatabaseConfig(url=os.environ["URL"] + "2", environment="dev", name="archive"), path="/a"
)

async def stock(database):
    return [Finding(id="SHOP001", level="warning", message="No stock.", fix="Order some.")]

archive.add_system_check(stock)
checked = Database(config)

async def disk():
    return False

checked.add_check("disk", disk)
plain = Litestar()

url = os.environ["URL"]

def create_app():
    return Litestar(plugins=[ReviewPointDBPlugin(config)])

async def create_app_later():
    return create_app()

def create_shop(city):
    return create_app()

def create_nothing():
    return {}["nothing"]
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> Run:
    """Runs a command in an empty folder; the database is a SQLite file."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("REVIEWPOINT_", "DATABASE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REVIEWPOINT_DB_URL", sqlite_url)
    monkeypatch.setenv("URL", sqlite_url)
    # Each test writes its own application.
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "shop.py").write_text(APPLICATIONS)

    def invoke(*arguments: str, **settings: Any) -> Result:
        result = CliRunner().invoke(main, arguments, **settings)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def test_check_passes(command: Run) -> None:
    result = command("check")
    assert (result.exit_code, result.output) == (0, "The checks passed.\n")


def test_check_prints_a_refused_configuration_and_fails(
    command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWPOINT_DB_URL", "mysql://ann:s3cret@host/db")
    result = command("check")
    assert result.exit_code == 1
    assert result.output.startswith("RPDB001 error: ")
    assert "s3cret" not in result.output


def test_check_fails_on_warnings_when_it_is_told_to(command: Run, postgres_url: str) -> None:
    environment = {"REVIEWPOINT_DB_URL": postgres_url}
    assert command("check", env=environment).output == "The checks passed.\n"
    result = command("check", "--processes", "1000", env=environment)
    assert result.exit_code == 0
    assert result.output.startswith("RPDB005 warning: 1000 processes")
    assert command("check", "--processes", "1000", "--strict", env=environment).exit_code == 1


def test_check_computes_the_pool_budget_on_paper(command: Run) -> None:
    environment = {
        "REVIEWPOINT_DB_URL": f"postgresql://ann@127.0.0.1:{free_port()}/papers",  # no server is there
        "REVIEWPOINT_DB_POOL_SIZE": "4",
        "REVIEWPOINT_DB_POOL_MAX_OVERFLOW": "4",
    }
    paper = ("check", "--max-connections", "100", "--processes")
    assert command(*paper, "12", env=environment).output == (
        "default: 12 processes x (pool.size 4 + pool.max_overflow 4) = 96 connections, and the "
        "server has 97 (max_connections 100 minus 3 reserved ones).\nThe checks passed.\n"
    )
    result = command(*paper, "13", env=environment)
    assert result.output.startswith("RPDB005 warning: 13 processes")
    assert "lower the pool to 7 connections a process" in result.output
    sqlite = {"REVIEWPOINT_DB_URL": "sqlite:///:memory:"}
    result = command(*paper, "13", env=sqlite)
    assert result.exit_code == 2
    assert "the pools of PostgreSQL databases, and here is none" in result.output


@pytest.mark.parametrize("name", ["config", "database", "create_app"])
def test_check_takes_the_applications_database(command: Run, name: str) -> None:
    result = command("--app", f"shop:{name}", "check", env={"REVIEWPOINT_DB_URL": "nonsense"})
    assert (result.exit_code, result.output) == (0, "The checks passed.\n")


def test_check_looks_at_all_databases_and_runs_the_applications_own_checks(command: Run) -> None:
    result = command("check", env={"REVIEWPOINT_DB_APP": "shop:fast"})
    assert result.output == ("SHOP001 warning: No stock. Fix: Order some.\nThe checks passed.\n")


@pytest.mark.parametrize("name", ["nothing", "plain"])
def test_an_application_without_a_database_says_how_to_get_one(command: Run, name: str) -> None:
    result = command("--app", f"shop:{name}", "check")
    assert result.exit_code == 1
    assert "setup_database" in result.output


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("shop:missing", "was not found: there is no missing. Give it as module:attribute."),
        ("shop", "was not found: there is no app. Give it as module:attribute."),
        ("shop:creat_app", "was not found: there is no creat_app. Did you mean create_app?"),
        ("shop:plain.nothing", "was not found: there is no nothing. Give it as module:attribute."),
        (
            "no_such_shop:app",
            "was not found: there is no module no_such_shop in {folder} or among ",
        ),
        ("no_such_shop.web:app", "was not found: there is no module no_such_shop in {folder} or "),
        (":app", "names no module: give it as module:attribute."),
        ("shop.py:fast", "is a file: give its module, shop:app for example."),
        ("web/shop:fast", "is a file: give its module, web.shop:app for example."),
        (
            "shop:url",
            "is of type str: name a Litestar, FastAPI or Starlette application, a Database ",
        ),
        (
            "shop:create_app_later",
            "is an async function: name one that is not, or the application.",
        ),
        (
            "shop:create_shop",
            "is a factory that needs arguments (missing a required argument: 'city')",
        ),
        (
            "shop:create_nothing",
            "raised: KeyError: 'nothing' ({folder}/shop.py, line {line}, in create_n",
        ),
        ("shop:ZeroDivisionError", "is of type ZeroDivisionError: name "),
    ],
)
def test_an_application_that_cannot_be_had_is_a_wrong_usage(
    command: Run, name: str, problem: str
) -> None:
    source = Path("shop.py").read_text().splitlines()
    line = source.index('    return {}["nothing"]') + 1
    for words in (["check"], ["upgrade", "--no-prompt"]):
        result = command("--app", name, *words)
        assert result.exit_code == 2
        wanted = problem.format(folder=Path.cwd(), line=line)
        assert f"Error: --app {name} {wanted}" in result.output


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (
            "import no_such_module",
            "ModuleNotFoundError: No module named 'no_such_module' ({file}, line 1",
        ),
        (
            "import json\njson.loads('{')",
            "JSONDecodeError: Expecting property name enclosed in double ",
        ),
        ("import json\njson.loads('{')", "char 1) ({file}, line 2, in <module>)."),
        ("app = (", "SyntaxError: '(' was never closed ({file}, line 1)."),
    ],
)
def test_the_error_of_an_application_that_cannot_be_imported_is_told_with_its_place(
    command: Run, monkeypatch: pytest.MonkeyPatch, code: str, problem: str
) -> None:
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    file = Path("broken.py").absolute()
    file.write_text(code)
    result = command("--app", "broken:app", "check")
    assert result.exit_code == 2
    assert "Error: --app broken:app could not be imported: " in result.output
    assert problem.replace("{file}", str(file)) in result.output


@pytest.mark.parametrize("code", ["{}", "def app(): {}"])
def test_a_wrong_configuration_of_the_application_is_told_as_one(
    command: Run, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    text = code.replace("{}", "reviewpoint_db.DatabaseConfig(url='mysql://ann:s3cret@host/db')")
    Path("broken.py").write_text(f"import reviewpoint_db\n{text}\n")
    result = command("--app", "broken:app", "check")
    assert result.exit_code == 1
    assert result.output.startswith("RPDB001 error: url = mysql://ann:***@host/db: ")


def test_health_says_so(command: Run) -> None:
    result = command("health")
    assert (result.exit_code, result.output) == (0, "default: healthy\n")


def test_health_of_all_databases(command: Run) -> None:
    result = command("--app", "shop:fast", "health")
    assert result.output == "default: healthy\narchive: healthy\n"


def test_health_fails_with_a_status_for_containers(
    command: Run, own_postgres: PostgresServer, own_url: str
) -> None:
    own_postgres.stop("immediate")
    result = command("health", env={"REVIEWPOINT_DB_URL": own_url})
    assert result.exit_code == 1
    assert result.output.startswith(
        "default: unhealthy (unreachable; connection: ConnectionRefused"
    )
    done = subprocess.run(
        [*PROGRAM, "health", "--wait", "0.9"],
        env={**os.environ, "REVIEWPOINT_DB_URL": own_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    # Why is said at once, and again in the end. On a busy machine the first look takes a while.
    why, again = done.stderr.rsplit(", ", 1)
    assert done.stdout == f"{why}\n"
    assert again in {"asking again for up to 1 s\n", "asking again for up to 0 s\n"}


def test_health_names_a_failing_check_of_the_application_and_does_not_judge_by_it(
    command: Run,
) -> None:
    """As readiness: a Job that migrates waits for the database, and not for a queue."""
    result = command("--app", "shop:checked", "health", "--wait", "30")
    assert result.exit_code == 0
    assert result.output == "default: unhealthy (check_failed; disk: failed)\n"


def test_health_waits_until_the_database_is_there(
    command: Run, own_postgres: PostgresServer, own_url: str
) -> None:
    own_postgres.stop("immediate")
    starting = threading.Timer(0.5, own_postgres.start)
    starting.start()
    result = command("health", "--wait", "30", env={"REVIEWPOINT_DB_URL": own_url})
    starting.join()
    assert result.exit_code == 0
    assert result.output.endswith(" s\ndefault: healthy\n")


def test_health_with_a_wrong_configuration_has_a_status_of_its_own(
    command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWPOINT_ENVIRONMENT", "nowhere")
    result = command("health")
    assert result.exit_code == 2
    assert "RPDB001" in result.output


def migrate(command: Run, *options: str) -> None:
    """Makes a migration that creates a table, and applies it."""
    assert command(*options, "init", "--no-prompt", "migrations").exit_code == 0
    write_migration(command, 'op.execute("create table papers (title text)")', *options)
    assert "RPDB006 warning: Migrations are pending" in command(*options, "check").output
    upgraded = command(*options, "upgrade", "--no-prompt")
    assert upgraded.exit_code == 0, upgraded.output
    assert command(*options, "check").output.endswith("The checks passed.\n")


def write_migration(command: Run, code: str, *options: str) -> None:
    """Makes a migration that runs some code."""
    made = command(*options, "make-migrations", "--no-prompt", "-m", "papers", "--no-autogenerate")
    assert made.exit_code == 0, made.output
    (script,) = Path("migrations/versions").glob("*papers*.py")
    text = script.read_text()
    body = text.index("pass", text.index("def schema_upgrades"))
    script.write_text(f"{text[:body]}{code}{text[body + 4 :]}")


def test_migrations_run_with_the_configured_engine(command: Run, sqlite_url: str) -> None:
    migrate(command)
    import sqlite3

    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("select * from papers").fetchall() == []
    connection.close()


def test_migrations_run_on_postgresql(
    command: Run, monkeypatch: pytest.MonkeyPatch, postgres: Any, postgres_url: str
) -> None:
    monkeypatch.setenv("REVIEWPOINT_DB_URL", postgres_url)
    migrate(command)
    assert postgres.psql("select count(*) from papers", postgres_url.rpartition("/")[2]) == "0"


def test_migrations_run_with_the_applications_own_configuration(command: Run) -> None:
    migrate(command, "--app", "shop:create_app")


def test_database_has_the_migration_commands_too(command: Run) -> None:
    assert "show-current-revision" in command("--help").output
    assert "show-current-revision" in command("database", "--help").output
    assert command("database", "init", "--no-prompt", "migrations").exit_code == 0
    assert command("database", "show-current-revision").exit_code == 0
    # Both have a `check`: ours is the short one.
    assert "set-up" in command("check", "--help").output
    assert "set-up" not in command("database", "check", "--help").output
    assert command("no-such-command").exit_code == 2


def test_an_error_of_the_migrations_is_one_line(command: Run) -> None:
    result = command("show-current-revision")
    assert result.exit_code == 1
    assert "Error: Path doesn't exist: migrations" in result.output
    assert "Traceback" not in result.output


def unreachable(url: str, part: str) -> str:
    """A URL that is wrong in one part."""
    parts = urlsplit(url)
    wrong = {
        "password": parts._replace(netloc=parts.netloc.replace(PASSWORD_IN_URLS, "s3cret")),
        "database": parts._replace(path="/nowhere"),
        "port": parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{free_port()}"),
        "host": parts._replace(netloc="ann:s3cret@nobody.invalid"),
    }
    return urlunsplit(wrong[part])


@pytest.mark.parametrize(
    ("part", "fix"),
    [
        (
            "password",
            '[28P01]: password authentication failed for user "postgres". Fix: the server ',
        ),
        (
            "database",
            '[3D000]: database "nowhere" does not exist. Fix: the database does not exist; ',
        ),
        ("port", "Fix: start the database, or correct host and port of the URL."),
        ("host", "Fix: no host has this name; correct the host of the URL."),
    ],
)
def test_a_database_that_cannot_be_reached_is_one_line(
    command: Run, monkeypatch: pytest.MonkeyPatch, postgres_url: str, part: str, fix: str
) -> None:
    assert command("init", "--no-prompt", "migrations").exit_code == 0
    monkeypatch.setenv("REVIEWPOINT_DB_POOL_TIMEOUT", "0.5")
    monkeypatch.setenv("REVIEWPOINT_DB_URL", unreachable(postgres_url, part))
    for words in (["upgrade", "--no-prompt"], ["database", "show-current-revision"]):
        result = command(*words)
        assert result.exit_code == 1
        _heading, line = result.output.splitlines()
        assert line.startswith("Error: postgresql+asyncpg://")
        assert " cannot be reached: " in line
        assert fix in line
        assert "s3cret" not in line
    (finding,) = (line for line in command("check").output.splitlines() if "RPDB004" in line)
    assert fix in finding


def test_a_file_that_cannot_be_opened_is_one_line(
    command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("init", "--no-prompt", "migrations").exit_code == 0
    monkeypatch.setenv("REVIEWPOINT_DB_URL", "sqlite:///no-such-folder/papers.sqlite3")
    result = command("upgrade", "--no-prompt")
    assert result.exit_code == 1
    assert result.output.endswith("the folder of the database file must exist and be writable.\n")


def test_the_line_names_the_database_that_was_asked_for(
    command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("init", "--no-prompt", "migrations").exit_code == 0
    monkeypatch.setenv("URL", "sqlite:///no-such-folder/papers.sqlite3")
    for key, name in (([], "papers.sqlite3"), (["--bind-key", "archive"], "papers.sqlite32")):
        result = command("--app", "shop:fast", "upgrade", "--no-prompt", *key)
        assert result.exit_code == 1
        assert f"no-such-folder/{name} cannot be reached" in result.output


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("open('no-such-file')", "FileNotFoundError"),
        ("op.execute('select nothing from nowhere')", "OperationalError"),
    ],
)
def test_the_error_of_a_script_keeps_its_traceback(command: Run, code: str, error: str) -> None:
    assert command("init", "--no-prompt", "migrations").exit_code == 0
    write_migration(command, code)
    # In a process of its own: nothing disposes of the engine of a script that failed.
    done = subprocess.run(
        [*PROGRAM, "upgrade", "--no-prompt"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"in schema_upgrades\n    {code}\n" in done.stderr
    assert f"{error}: " in done.stderr


def test_a_wrong_configuration_is_one_line_for_migrations_too(
    command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWPOINT_DB_URL", "mysql://ann:s3cret@host/db")
    result = command("show-current-revision")
    assert result.exit_code == 1
    assert "Error: url = mysql://ann:***@host/db" in result.output


def test_each_database_has_its_migrations(command: Run) -> None:
    databases = [
        Database(DatabaseConfig(environment="dev", url="sqlite:///a", name=name))
        for name in ("default", "archive")
    ]
    target = Target(migrations="scripts")
    target["databases"] = databases
    assert [config.bind_key for config in target["configs"]] == [None, "archive"]
    assert target.migrations_of(databases[1]).script_location == "scripts"
    with pytest.raises(KeyError):
        target["other"]


def test_a_database_that_the_configs_do_not_name_takes_the_first_ones(command: Run) -> None:
    database = Database(DatabaseConfig(environment="dev", url="sqlite:///a", name="main"))
    target = Target("shop:create_app")
    assert target.migrations_of(database).script_location == "migrations"


def test_the_commands_stand_under_litestar(command: Run) -> None:
    for words, expected in (
        (["check"], "The checks passed.\n"),
        (["health"], "default: healthy\n"),
        (["database", "--help"], "show-current-revision"),
    ):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "litestar",
                "--app",
                "shop:create_app",
                "reviewpoint-db",
                *words,
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, "."])},
        )
        assert expected in done.stdout
        assert "reviewpoint_db" not in done.stderr  # no line of our log


@pytest.mark.parametrize("words", [["check"], ["upgrade", "--no-prompt"]])
def test_a_command_prints_no_line_of_our_log(command: Run, words: list[str]) -> None:
    assert command("init", "--no-prompt", "migrations").exit_code == 0
    for options in ([], ["--app", "shop:create_app"]):
        done = subprocess.run(
            [*PROGRAM, *options, *words], check=True, capture_output=True, text=True
        )
        assert "reviewpoint_db" not in done.stderr


def test_a_loaded_environment_is_taken_as_it_is(sqlite_url: str) -> None:
    database = Database(DatabaseConfig(environment="dev", url=sqlite_url))

    class Environment:
        app = database

    result = CliRunner().invoke(main, ["health"], obj=Environment())
    assert result.output == "default: healthy\n"
    bare = SimpleNamespace(state=None)
    with pytest.raises(ConfigurationError):
        Target(find_app=lambda: bare).databases  # noqa: B018
