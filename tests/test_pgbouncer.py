"""PgBouncer is noticed at a login by what it shows for nothing, and asked about once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from asyncpg import InvalidPasswordError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

from reviewpoint_db import pgbouncer
from reviewpoint_db.checks import run_checks
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.driver_errors import code_of
from reviewpoint_db.endpoints.live import live_figures
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.pgbouncer import NOT_AVAILABLE, answers, listen_for
from reviewpoint_db.postgresql import PostgreSQL
from tests.support.pools import engine_with_pool
from tests.support.relay import Relay


class RefusedError(Exception):
    sqlstate = "08P01"


class Driver:
    """What asyncpg would have logged in to."""

    def __init__(self, pid: int, encoding: str, answer: str | BaseException) -> None:
        self.pid = pid
        self.encoding = encoding
        self.answer = answer
        self.asked: list[str] = []
        self.cut = False

    def get_server_pid(self) -> int:
        return self.pid

    def get_settings(self) -> Any:
        return SimpleNamespace(client_encoding=self.encoding)

    async def execute(self, query: str) -> str:
        self.asked.append(query)
        await asyncio.sleep(0)  # so that two logins overlap
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def terminate(self) -> None:
        self.cut = True


class Server:
    """A stand-in for SQLAlchemy's dialect, and for all that its `connect` reaches."""

    def __init__(self, make: Callable[[], Driver]) -> None:
        self.make = make
        self.refuses: set[str] = set()
        self.drivers: list[Driver] = []
        self.options: list[dict[str, Any]] = []

    def connect(self, *_: Any, **options: Any) -> Any:
        self.options.append(options)
        if refused := self.refuses & {*options.get("server_settings", {})}:
            raise RefusedError(f"unsupported startup parameter: {min(refused)}")
        self.drivers.append(self.make())
        return SimpleNamespace(driver_connection=self.drivers[-1])

    async def login(self, login: Any, **options: Any) -> Driver:
        login._connect = self.connect
        connection = await greenlet_spawn(login.connect, **options)
        driver: Driver = connection.driver_connection
        return driver


def direct() -> Driver:
    return Driver(4711, "UTF8", "SELECT 1")


def bounced() -> Driver:
    return Driver(-266970340, "'utf-8'", "SELECT 0")


def _no_dialect(*_: Any, **__: Any) -> Any:
    raise AssertionError("a Server comes in its place")


def login(*, certain: bool = False) -> Any:
    return pgbouncer.Login(_no_dialect, certain=certain)


def _backend(found: pgbouncer.Login) -> PostgreSQL:
    backend = PostgreSQL()
    backend._login = found
    return backend


async def test_a_server_that_answers_itself_is_asked_nothing() -> None:
    server = Server(direct)
    found = login()
    driver = await server.login(found, server_settings={"application_name": "a"})
    assert not driver.asked and not driver.cut
    assert not found.certain
    assert server.options == [{"server_settings": {"application_name": "a"}}]
    assert _backend(found).pid(driver) == 4711


@pytest.mark.parametrize(("pid", "encoding"), [(-5, "UTF8"), (2**22 + 1, "UTF8"), (7, "'utf-8'")])
async def test_pgbouncer_is_noticed_asked_about_once_and_spoken_to_safely(
    pid: int, encoding: str
) -> None:
    server = Server(lambda: Driver(pid, encoding, "SELECT 0"))
    found = login()
    first = await server.login(found, prepared_statement_name_func=lambda: str(uuid.uuid4()))
    second = await server.login(found)
    noticed = server.drivers[0]
    assert len(noticed.asked) == 1 and str(pid) in noticed.asked[0] and noticed.cut
    assert len(server.drivers) == 3
    for driver in (first, second):
        assert not driver.asked and not driver.cut
        assert _backend(found).pid(driver) is None
    assert found.certain
    for options in server.options[1:]:
        assert options["statement_cache_size"] == options["prepared_statement_cache_size"] == 0
        assert options["prepared_statement_name_func"]() == ""


async def test_two_logins_at_a_time_find_it_and_say_so_once() -> None:
    server = Server(bounced)
    found = login()
    await asyncio.gather(server.login(found), server.login(found))
    assert found.certain


async def test_a_strange_process_id_that_the_server_confirms_is_no_pgbouncer() -> None:
    server = Server(lambda: Driver(2**23, "UTF8", "SELECT 1"))
    found = login()
    driver = await server.login(found)
    assert len(driver.asked) == 1 and not driver.cut
    assert not found.certain


@pytest.mark.parametrize("error", [ConnectionResetError(), asyncio.CancelledError()])
async def test_a_login_that_is_lost_while_it_asks_leaves_nothing_open(error: BaseException) -> None:
    server = Server(lambda: Driver(-1, "UTF8", error))
    with pytest.raises(type(error)):
        await server.login(login())
    assert server.drivers[0].cut


async def test_declared_it_is_not_looked_for() -> None:
    server = Server(bounced)
    driver = await server.login(login(certain=True))
    assert len(server.drivers) == 1
    assert not driver.asked


async def test_parameters_of_a_socket_are_left_out_when_pgbouncer_refuses_them() -> None:
    server = Server(bounced)
    server.refuses = {"tcp_keepalives_idle"}
    settings = {"application_name": "a", "tcp_keepalives_idle": "30"}
    await server.login(login(), server_settings=settings)
    assert server.options[-1]["server_settings"] == {"application_name": "a"}
    assert len(settings) == 2


async def test_a_parameter_of_the_users_own_that_pgbouncer_refuses_is_an_error_with_its_fix() -> (
    None
):
    server = Server(bounced)
    server.refuses = {"options"}
    with pytest.raises(ConfigurationError, match="ALTER ROLE"):
        await server.login(login(), server_settings={"options": "-c work_mem=8MB"})


@pytest.mark.parametrize("certain", [False, True])
async def test_pgbouncers_word_for_a_wrong_password_is_that_of_the_server(certain: bool) -> None:
    def refuse() -> Driver:
        raise RefusedError("SASL authentication failed")

    with pytest.raises(InvalidPasswordError, match="SASL") as refused:
        await Server(refuse).login(login(certain=certain))
    assert code_of(refused.value) == "28P01"


@pytest.mark.parametrize("certain", [False, True])
async def test_another_error_of_the_login_is_what_it_was(certain: bool) -> None:
    def down() -> Driver:
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await Server(down).login(login(certain=certain))


async def test_a_real_server_gives_no_hint_and_is_asked_nothing(postgres_url: str) -> None:
    with Relay.to(postgres_url) as relay:
        flights: list[str] = []
        async with engine_with_pool(relay.url(postgres_url)) as engine, engine.connect():
            relay.reset()
            async with engine.connect() as second:
                flights += relay.counters.flights
                driver = (await second.get_raw_connection()).driver_connection
                assert not pgbouncer._hints(driver)
                assert not answers(engine)
        assert not flights


async def test_declared_absent_nothing_listens(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url.replace("://", "+asyncpg://"))
    assert not answers(engine)
    listen_for(engine, declared=False)
    assert "connect" not in vars(engine.sync_engine.dialect)
    assert not answers(engine)
    listen_for(engine, declared=True)
    assert answers(engine)


async def test_declared_it_is_said_where_somebody_would_look_for_who_holds_what(
    postgres_url: str,
) -> None:
    config = DatabaseConfig(url=postgres_url, environment="test", pgbouncer=True)
    async with Database(config) as database:
        async with database.session() as session:
            await session.execute(text("SELECT 1"))
            assert [each.pid for each in database.activity.holders()] == [None]
            view = await database.look_at_server()
        assert view.connections and view.note == NOT_AVAILABLE
        live = msgspec.json.decode((await live_figures(database)).body)
        assert live["workers_note"].endswith(NOT_AVAILABLE)


async def test_our_pools_need_not_fit_into_the_server_behind_it(postgres_url: str) -> None:
    found = {}
    for declared in (None, True):
        config = DatabaseConfig(url=postgres_url, environment="test", pgbouncer=declared)
        async with Database(config) as database:
            findings = await run_checks(database, processes=1000)
            found[declared] = [each.id for each in findings]
    assert "RPDB005" in found[None]
    assert "RPDB005" not in found[True]


def test_declared_the_pool_is_small_unless_it_was_given() -> None:
    url = "postgresql://ann@db.example.org/papers"
    pool = DatabaseConfig(url=url, environment="prod", pgbouncer=True).effective_pool
    assert (pool.size, pool.max_overflow) == (5, 5)
    given = DatabaseConfig(
        url=url, environment="prod", pgbouncer=True, pool=PoolConfig(size=7, max_overflow=1)
    ).effective_pool
    assert (given.size, given.max_overflow) == (7, 1)


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("false", False)])
def test_it_is_a_switch_in_the_environment(value: str, expected: bool) -> None:
    environ = {"REVIEWPOINT_DB_URL": "postgresql://localhost/x", "REVIEWPOINT_DB_PGBOUNCER": value}
    assert DatabaseConfig.from_env(environ).pgbouncer is expected


@pytest.mark.parametrize(("url", "value"), [("postgresql://localhost/x", "yes"), (None, True)])
def test_what_cannot_be_is_refused(url: str | None, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="pgbouncer"):
        DatabaseConfig(url=url, pgbouncer=value)
