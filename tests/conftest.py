"""Fixtures that all tests may ask for; none is autouse.

| fixture        | what it is                                                                     |
|----------------|--------------------------------------------------------------------------------|
| `run`          | the run's folder and servers                                                   |
| `postgres`     | the server that all tests share: do not stop, freeze or reconfigure it         |
| `postgres_url` | the URL of an empty database on it, this test's own                            |
| `own_postgres` | a running server of this process alone: stop, restart, freeze it as you like   |
| `own_url`      | the URL of an empty database on that                                           |
| `sqlite_url`   | the URL of a database file that does not exist yet                             |
| `database_url` | the test runs twice: with `sqlite_url` and with `postgres_url`                 |
| `lines`        | what is logged from INFO on, as `LEVEL|message`                                |
| `authority`    | an authority that issues certificates for TLS; `stranger` is another one       |
| `certificate`  | the server's by `authority`, for `localhost` and not for 127.0.0.1             |
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from loguru import logger

from tests.support.run import Run
from tests.support.tls import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import PostgresServer, RemoteServer

# For the tests of our own plugin, which run pytest inside of a test.
pytest_plugins = ["pytester"]

_RUN = pytest.StashKey[Run]()


def pytest_configure(config: pytest.Config) -> None:
    """Opens the run, or joins that of the process which started this worker."""
    from pathlib import Path

    # The package has a pool of 1 + 1 under xdist. What is tested is what it does elsewhere; the tests
    # of that set the variable themselves.
    os.environ.pop("PYTEST_XDIST_WORKER", None)
    worker: dict[str, str] | None = getattr(config, "workerinput", None)
    if worker is None:
        config.stash[_RUN] = Run.create()
    else:
        config.stash[_RUN] = Run(Path(worker["reviewpoint_run"]), worker["workerid"])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Tells a pytest-xdist worker where the run's folder is."""
    node.workerinput["reviewpoint_run"] = str(node.config.stash[_RUN].folder)  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Closes the run; this is called after Ctrl-C too."""
    if not hasattr(config, "workerinput") and _RUN in config.stash:
        config.stash[_RUN].close()


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    return pytestconfig.stash[_RUN]


@pytest.fixture(scope="session")
def postgres(run: Run) -> RemoteServer:
    return run.shared_server()


@pytest.fixture(scope="session")
def _worker_database(run: Run, postgres: RemoteServer) -> Iterator[str]:
    """The database of this worker: made once, since that costs 0.1 s and cleaning it 0.02 s."""
    name = f"{run.folder.name}_{run.worker}"
    postgres.create_database(name)
    yield name
    postgres.drop_database(name)


@pytest.fixture
def postgres_url(postgres: RemoteServer, _worker_database: str) -> Iterator[str]:
    yield postgres.url(_worker_database)
    postgres.clean_database(_worker_database)


@pytest.fixture(scope="session")
def _own_server(run: Run) -> Iterator[PostgresServer]:
    server = run.own_server()
    yield server
    server.remove()


@pytest.fixture
def own_postgres(_own_server: PostgresServer) -> Iterator[PostgresServer]:
    _own_server.start()
    yield _own_server
    if _own_server.changed:
        _own_server.remove()
        return
    if _own_server.running:
        _own_server.thaw()
    try:
        _own_server.start()
        for name in _own_server.databases():
            _own_server.drop_database(name)
        for name in _own_server.roles():
            _own_server.psql(f'DROP ROLE "{name}"')
    except (RuntimeError, subprocess.SubprocessError):
        # The test broke it for good (a changed password, say): the next one gets a new one.
        _own_server.remove()


@pytest.fixture
def own_url(own_postgres: PostgresServer) -> str:
    return own_postgres.create_database("own")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'test.sqlite3'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(found.append, level="INFO", format="{level}|{message}")
    yield found
    logger.remove(sink)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Path:
    return authority.issue("server", subject="database", names="DNS:localhost")
