"""A real PgBouncer in transaction mode before a real server: right answers, and no other ones."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ConfigurationError
from tests.support.pgbouncer import PgBouncer, version
from tests.support.server import AsgiServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import PostgresServer
    from tests.support.run import Run

#: How many different statements the application reads by.
SHAPES = 13


@pytest.fixture
def folder(run: Run, request: pytest.FixtureRequest) -> Path:
    # Of the run: PgBouncer's user cannot reach pytest's own temporary folders.
    return run.folder / f"pgbouncer-{run.worker}-{abs(hash(request.node.nodeid))}"


@pytest.fixture(params=[False, True], ids=["installed", "tracking"])
def bouncer(folder: Path, own_url: str, request: pytest.FixtureRequest) -> Iterator[PgBouncer]:
    """The one that is installed, and one that tracks prepared statements."""
    with PgBouncer(folder, own_url, tracking=request.param) as bouncer:
        yield bouncer


@pytest.fixture
def soaked(own_postgres: PostgresServer, own_url: str) -> PostgresServer:
    own_postgres.psql("CREATE TABLE soak (n int NOT NULL)", "own")
    return own_postgres


@dataclass
class Soak:
    """Clients that each do one thing after the other, and what they saw."""

    server: AsgiServer
    statuses: Counter[int] = field(default_factory=Counter)
    stored: list[int] = field(default_factory=list)
    slowest: float = 0.0
    last_trouble: float = 0.0
    wrong: list[str] = field(default_factory=list)
    numbers: Any = field(default_factory=partial(itertools.count, 1))

    async def run(self, clients: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        async with (
            httpx.AsyncClient(
                base_url=self.server.url,
                timeout=20,
                limits=httpx.Limits(max_connections=clients, max_keepalive_connections=0),
            ) as http,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(clients):
                group.create_task(self._client(http, end))

    async def _client(self, http: httpx.AsyncClient, end: float) -> None:
        while (began := time.monotonic()) < end:
            number = next(self.numbers)
            kind = ("read", "write", "read", "refuse", "stream")[number % 5]
            method = "POST" if kind in {"write", "refuse"} else "GET"
            try:
                answer = await http.request(method, f"/{kind}/{number}")
            except httpx.RemoteProtocolError:  # a stream that had begun
                self.last_trouble = time.monotonic()
                self.statuses[0] += 1
                continue
            finally:
                self.slowest = max(self.slowest, time.monotonic() - began)
            self.statuses[answer.status_code] += 1
            if answer.status_code >= 500:
                self.last_trouble = time.monotonic()
            else:
                self._compare(kind, number, answer)

    def _compare(self, kind: str, number: int, answer: httpx.Response) -> None:
        if kind == "write":
            self.stored.append(number)
        shape = number % SHAPES
        if kind == "refuse":
            right = answer.status_code == 418
        elif kind == "stream":
            right = answer.text.split() == [str(number + i) for i in range(1, 201)]
        else:
            right = answer.json() == (number if kind == "write" else [number + shape] * (shape + 1))
        if not right:
            self.wrong.append(f"{kind} {number}: {answer.status_code} {answer.text[:200]}")


def serving(url: str, declared: str) -> AsgiServer:
    return AsgiServer(
        "tests.scale.pgbouncer_app:app",
        env={"SOAK_URL": url, "SOAK_PGBOUNCER": declared, "SOAK_SHAPES": str(SHAPES)},
        options=("--no-access-log", "--log-level", "warning"),
    )


def rows(server: PostgresServer) -> list[int]:
    return [int(row) for row in server.psql("SELECT n FROM soak ORDER BY n", "own").splitlines()]


@pytest.mark.parametrize(
    ("declared", "seconds", "tracking"),
    [("", 30.0, False), ("yes", 5.0, False), ("", 8.0, True), ("no", 5.0, True)],
    ids=["noticed", "declared", "tracking", "tracking, prepared"],
)
async def test_32_clients_on_4_server_connections_get_right_answers_only(
    folder: Path,
    own_url: str,
    soaked: PostgresServer,
    declared: str,
    seconds: float,
    tracking: bool,
) -> None:
    """One that tracks prepared statements may be told to be none, and they are prepared then."""
    with (
        PgBouncer(folder, own_url, pool_size=4, tracking=tracking) as bouncer,
        serving(bouncer.url, declared) as server,
    ):
        soak = Soak(server)
        await soak.run(32, seconds)
        assert set(soak.statuses) == {200, 418}, (soak.statuses, server.log[-3000:])
        assert not soak.wrong
        assert soak.statuses.total() > 10 * seconds
        assert rows(soaked) == sorted(soak.stored)
        assert "prepared statement" not in server.log + bouncer.log
        assert ("PgBouncer answers" in server.log) == (declared == "")
        assert len(soaked.sessions("own")) <= 4


async def test_the_soak_notices_what_happens_without_the_protection(
    folder: Path, own_url: str, soaked: PostgresServer
) -> None:
    without = {"max_prepared_statements": "0"} if version() >= (1, 21) else {}
    with (
        PgBouncer(folder, own_url, pool_size=4, settings=without) as bouncer,
        serving(bouncer.url, "no") as server,
    ):
        soak = Soak(server)
        await soak.run(16, 2)
        assert soak.wrong or soak.statuses[500]
        assert "prepared statement" in server.log


@pytest.mark.parametrize("bouncer", [False], indirect=True, ids=["installed"])
async def test_a_restart_of_pgbouncer_under_load_is_over_when_it_is_back(
    bouncer: PgBouncer, soaked: PostgresServer
) -> None:
    with serving(bouncer.url, "") as server:
        soak = Soak(server)
        load = asyncio.create_task(soak.run(16, 8))
        await asyncio.sleep(2)
        bouncer.kill()
        await asyncio.sleep(0.5)
        bouncer.start()
        back = time.monotonic()
        await load
        # Who was in the middle of a transaction was refused; all others waited until it was back.
        assert soak.last_trouble or soak.slowest > 0.4, "the restart was not noticed"
        assert soak.last_trouble - back < 3, soak.last_trouble - back
        assert soak.slowest < 12
        assert not soak.wrong
        assert not set(soak.stored) - {*rows(soaked)}, "an acknowledged row is lost"
        assert min(rows(soaked)) > 0, "a refused row is stored"
        assert set(soak.statuses) <= {0, 200, 418, 500, 503}, soak.statuses
        # 500 is the answer to a COMMIT whose outcome nobody knows.
        assert soak.statuses[500] <= server.log.count("CommitOutcomeUnknown"), server.log[-3000:]


@pytest.mark.parametrize("declared", [None, True])
async def test_what_works_through_pgbouncer(bouncer: PgBouncer, declared: bool | None) -> None:
    config = DatabaseConfig(url=bouncer.url, environment="test", pgbouncer=declared)
    async with Database(config) as database:
        async with database.session() as session:
            await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
            level = await session.scalar(text("SHOW transaction_isolation"))
            assert level == "serializable"
            await session.execute(text("SET LOCAL statement_timeout = '1s'"))
            assert await session.scalar(text("SELECT pg_try_advisory_xact_lock(1)"))
            async with session.begin_nested():
                assert await session.scalar(text("SELECT 2")) == 2
            await session.commit()
        async with database.session() as session:
            assert await session.scalar(text("SHOW statement_timeout")) == "0"
        async with database.read_session() as reading:
            rows = await reading.stream(text("SELECT generate_series(1, 1000)"))
            assert len([row async for row in rows]) == 1000
        async with database.engine.execution_options(
            isolation_level="AUTOCOMMIT"
        ).connect() as plain:
            await plain.execute(text("VACUUM"))


async def test_a_cancelled_statement_ends_at_the_server(
    bouncer: PgBouncer, own_postgres: PostgresServer
) -> None:
    async with Database(DatabaseConfig(url=bouncer.url, environment="test")) as database:

        async def sleep() -> None:
            async with database.session() as session:
                await session.execute(text("SELECT pg_sleep(60)"))

        sleeping = asyncio.create_task(sleep())

        async def becomes(active: bool) -> None:
            async with asyncio.timeout(10):
                while active != any(
                    "pg_sleep" in each.query and each.state == "active"
                    for each in await asyncio.to_thread(own_postgres.sessions, "own")
                ):
                    await asyncio.sleep(0.02)

        await becomes(active=True)
        sleeping.cancel()
        await asyncio.wait({sleeping})
        await becomes(active=False)


async def test_who_holds_which_backend_is_said_to_be_not_available(bouncer: PgBouncer) -> None:
    async with (
        Database(DatabaseConfig(url=bouncer.url, environment="test")) as database,
        database.session() as session,
    ):
        await session.execute(text("SELECT 1"))
        assert [each.pid for each in database.activity.holders()] == [None]
        view = await database.look_at_server()
        assert view.error is None
        assert "not available behind PgBouncer" in (view.note or "")
        assert view.connections
        assert not [each for each in view.connections if each.holder]


async def test_what_pgbouncer_refuses_is_named_with_what_to_do(bouncer: PgBouncer) -> None:
    # Newer ones understand `options`; a parameter of nobody's is refused by each.
    settings = {"work_mem": "8MB"} if bouncer.version >= (1, 20) else {"options": "-c work_mem=8MB"}
    async with (
        Database(
            DatabaseConfig(
                url=bouncer.url,
                environment="test",
                engine_options={"connect_args": {"server_settings": settings}},
            )
        ) as database,
        database.session() as session,
    ):
        with pytest.raises(ConfigurationError, match=r"startup parameter.*ALTER ROLE"):
            await session.execute(text("SELECT 1"))


async def test_what_this_package_asks_of_a_socket_is_left_out(bouncer: PgBouncer) -> None:
    own = {"server_settings": {"tcp_keepalives_idle": "30", "application_name": "soak"}}
    config = DatabaseConfig(
        url=bouncer.url, environment="test", engine_options={"connect_args": own}
    )
    async with Database(config) as database, database.session() as session:
        assert await session.scalar(text("SHOW application_name")) == "soak"


async def test_session_mode_may_be_declared_and_keeps_prepared_statements(
    folder: Path, own_url: str
) -> None:
    with PgBouncer(folder, own_url, pool_mode="session") as bouncer:
        config = DatabaseConfig(url=bouncer.url, environment="test", pgbouncer=False)
        async with Database(config) as database, database.session() as session:
            await session.execute(text("SELECT 1"))
            found = await session.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
            assert found


async def test_a_wrong_password_is_refused_as_ever(bouncer: PgBouncer) -> None:
    config = DatabaseConfig(
        url=bouncer.url.replace("@127", "x@127"), environment="test", pgbouncer=True
    )
    async with Database(config) as database, database.session() as session:
        with pytest.raises((DBAPIError, OSError)):
            await session.execute(text("SELECT 1"))
