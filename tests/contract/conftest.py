"""The stacks of the contract: each application in a process of its own, on a server of its own.

A test asks for `case`, and says by `on_postgresql` or `everywhere` (see `kinds.py`) for which
applications it holds. Processes are started once and reused; pytest orders the tests by them.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.contract.apps import tables
from tests.contract.case import Case, client_of
from tests.contract.stack import LEFT_BEHIND, Kind, Stack
from tests.contract.world import World, through

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.run import Run


@contextmanager
def world_of(run: Run, name: str) -> Iterator[World]:
    """A PostgreSQL server that tests may break, with its tables, behind a relay."""
    cluster = run.own_cluster(name) if through() == "replica" else None
    server = cluster.primary if cluster else run.own_server(name)
    server.set(deadlock_timeout="100ms")
    (cluster or server).start()
    world = World(server, cluster)
    with world.relay:
        yield world
    world.close()
    (cluster or server).remove()


@pytest.fixture(scope="session")
def world(run: Run) -> Iterator[World]:
    """The server of these tests."""
    with world_of(run, "contract") as world:
        yield world


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A running application."""
    kind: Kind = request.param
    database: World | Path
    read_url = None
    if kind.backend == "sqlite":
        database = tmp_path_factory.mktemp(str(kind)) / "contract.sqlite3"
        with closing(sqlite3.connect(database)) as connection:
            connection.executescript(tables.SQLITE)
        url = f"sqlite:///{database}"
    else:
        database = world = request.getfixturevalue("world")
        url, read_url = world.url, world.read_url
    with kind.server(url, read_url=read_url) as server:
        yield Stack(kind, server, database)
        server.stop()
        assert not [text for text in LEFT_BEHIND if text in server.log], server.log


@pytest_asyncio.fixture
async def case(stack: Stack) -> AsyncIterator[Case]:
    """One test's dealings with a running application."""
    async with client_of(stack.server) as http:
        yield Case(stack, http)


@pytest_asyncio.fixture
async def faults(case: Case, world: World) -> AsyncIterator[World]:
    """The server and the relay, to be broken; afterwards they and the application work again."""
    # Until its first look at a standby the application reads from what is going to be broken.
    await case.until_replicated()
    yield world
    world.repair()
    await case.works()
