"""Several hosts in the URL: who gets the connection, and what a failover does to the pool."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.endpoints.hosts import host_reports
from reviewpoint_db.errors import DatabaseUnavailableError
from reviewpoint_db.hosts import HostNotes, NoHostError, connect_first
from reviewpoint_db.sqlite import SQLite
from reviewpoint_db.sqlstate import is_transient_connect
from tests.support.pools import backend_pid, engine_with_pool, pool_of, until
from tests.support.postgres import HOST, PASSWORD, PostgresServer, free_port
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tests.support.cluster import PostgresCluster
    from tests.support.postgres import RemoteServer
    from tests.support.run import Run


@pytest.fixture(scope="module")
def pair(run: Run) -> Iterator[PostgresCluster]:
    """A primary and its standby, which is asked first."""
    pair = run.own_cluster("hosts")
    try:
        pair.start()
        pair.servers.reverse()
        pair._leader = 1
        yield pair
    finally:
        pair.remove()


def _login(*ports: int, **more: Any) -> dict[str, Any]:
    login = {"user": "postgres", "password": PASSWORD, "database": "postgres", "timeout": 5}
    return {"host": [HOST] * len(ports), "port": list(ports), **login, **more}


def _of(url: str) -> dict[str, Any]:
    parts = make_url(url)
    return {"user": parts.username, "password": parts.password, "database": parts.database}


async def _pid(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return await backend_pid(connection)


async def _error(engine: AsyncEngine, *statements: str) -> DBAPIError:
    with pytest.raises(DBAPIError) as caught:  # noqa: PT012 - which one fails is the statement's part
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    return caught.value


def test_several_hosts_are_asked_for_one_that_can_be_written_to() -> None:
    def wanted(url: str) -> object:
        return (
            DatabaseConfig(url=url, environment="test").connect_args().get("target_session_attrs")
        )

    assert wanted("postgresql://ann@one,two/papers") == "read-write"
    assert wanted("postgresql://ann@one,two/papers?target_session_attrs=any") == "any"
    assert wanted("postgresql://ann@one/papers") is None


async def test_the_standby_that_is_asked_first_is_passed_over(pair: PostgresCluster) -> None:
    async with engine_with_pool(pair.url("postgres")) as engine, engine.connect() as connection:
        port = await connection.scalar(text("SHOW port"))
    assert port == str(pair.primary.port)


async def test_prefer_standby_takes_the_standby(pair: PostgresCluster) -> None:
    ports = [pair.primary.port, pair.standbys[0].port]
    connection = await connect_first(**_login(*ports, target_session_attrs="prefer-standby"))
    assert await connection.fetchval("SELECT pg_is_in_recovery()")
    await connection.close()


async def test_a_frozen_host_does_not_use_up_the_time_limit(pair: PostgresCluster) -> None:
    # The kernel accepts, as it does for a frozen process, and nobody says anything.
    with socket.create_server((HOST, 0)) as silent:
        async with asyncio.timeout(4):
            connection = await connect_first(
                **_login(
                    silent.getsockname()[1], pair.primary.port, target_session_attrs="read-write"
                )
            )
        await connection.close()


async def test_a_slow_host_is_waited_for_when_all_others_have_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reviewpoint_db.hosts.HEAD_START", 0.001)
    with Relay.to(postgres_url) as relay:
        relay.delay(0.05)
        connection = await connect_first(**_login(relay.port, free_port(), **_of(postgres_url)))
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


async def test_a_host_that_was_given_no_time_to_answer_is_not_called_silent() -> None:
    notes = HostNotes()
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await connect_first(**_login(port, port), host_notes=notes)
    assert not notes.met


async def test_of_two_that_answer_at_once_one_is_used_and_the_other_is_cut(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reviewpoint_db.hosts.HEAD_START", 0.001)
    connect, meeting, opened = asyncpg.connect, asyncio.Barrier(2), list[Any]()

    async def connect_both(**options: Any) -> Any:
        opened.append(await connect(**options))
        await meeting.wait()
        return opened.pop(0)

    monkeypatch.setattr(asyncpg, "connect", connect_both)
    with Relay.to(postgres_url) as relay:
        connection = await connect_first(**_login(relay.port, relay.port, **_of(postgres_url)))
        await until(lambda: relay.live == 1)
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


async def test_where_none_can_be_written_to_the_error_says_so_of_each(
    pair: PostgresCluster,
) -> None:
    nobody = free_port()
    with pytest.raises(NoHostError, match="no writable host among 2") as caught:
        await connect_first(
            **_login(pair.standbys[0].port, nobody, target_session_attrs="read-write")
        )
    assert f"{HOST}:{nobody}: ConnectionRefusedError" in str(caught.value)
    assert is_transient_connect(caught.value)


async def test_a_wrong_password_everywhere_is_told_as_it_is(pair: PostgresCluster) -> None:
    ports = [server.port for server in pair.servers]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect_first(**{**_login(*ports), "password": "wrong"})


async def test_whoever_finds_no_writable_host_in_time_is_told(pair: PostgresCluster) -> None:
    address, _, name = pair.standbys[0].url("postgres").rpartition("/")
    url = f"{address},{HOST}:{free_port()}/{name}"
    async with engine_with_pool(url, timeout=2.0) as engine:
        with pytest.raises(DatabaseUnavailableError, match="no writable host among 2"):
            await _pid(engine)


async def test_a_write_refused_by_a_standby_replaces_all_connections(
    pair: PostgresCluster,
) -> None:
    async with engine_with_pool(pair.standbys[0].url("postgres"), ping_after_idle=60) as engine:
        async with engine.connect() as idle, engine.connect() as held:
            await idle.close()
            pids = {await backend_pid(held)}
            error = await _error(engine, "CREATE TABLE refused (id int)")
            assert "read-only" in str(error)
            assert pool_of(engine).checkedin() == 0
        # What was held, and came back after the write, is not used again either.
        assert await _pid(engine) not in pids


async def test_a_transaction_made_read_only_replaces_nothing(postgres_url: str) -> None:
    async with engine_with_pool(postgres_url, ping_after_idle=60) as engine:
        pid = await _pid(engine)
        await _error(engine, "SET TRANSACTION READ ONLY", "CREATE TABLE refused (id int)")
        assert await _pid(engine) == pid


async def test_the_end_of_one_by_an_administrator_replaces_the_others_once_a_second(
    postgres: RemoteServer, postgres_url: str
) -> None:
    async with engine_with_pool(postgres_url, size=3, ping_after_idle=60) as engine:
        async with engine.connect(), engine.connect() as other:
            kept = await backend_pid(other)
            await _error(engine, "SELECT pg_terminate_backend(pg_backend_pid())")
        again = await _pid(engine)
        assert again != kept
        pool_of(engine)._supply.retired_at = time.monotonic()
        pool_of(engine).retire("a second reason within the second")
        assert await _pid(engine) == again


async def test_what_was_being_opened_meanwhile_is_not_used(postgres_url: str) -> None:
    async with engine_with_pool(postgres_url, size=1, max_overflow=0) as engine:

        @event.listens_for(engine.sync_engine, "connect", once=True)
        def fail_over(*_: object) -> None:
            pool_of(engine).retire("a failover")

        opening = asyncio.create_task(_pid(engine))
        await opening
        assert pool_of(engine).activity.snapshot().opened == 2


async def test_a_silent_ping_replaces_the_others_too(own_postgres: PostgresServer) -> None:
    options = {"ping_after_idle": 0, "connect_timeout": 0.3, "timeout": 1.0}
    async with engine_with_pool(own_postgres.url("postgres"), **options) as engine:
        async with engine.connect(), engine.connect():
            pass
        own_postgres.freeze()
        try:
            with pytest.raises(DatabaseUnavailableError):
                await _pid(engine)
            assert pool_of(engine).checkedin() == 0
        finally:
            own_postgres.thaw()


def test_sqlite_has_no_other_server() -> None:
    assert not SQLite().refuses_writes(None)


async def test_the_live_page_tells_the_hosts_apart(pair: PostgresCluster) -> None:
    url = pair.url("postgres")
    config = DatabaseConfig(url=url, environment="test")
    async with Database(config) as database, database.session() as session:
        await session.execute(text("select 1"))
        standby, primary = host_reports(database)
    assert (standby.role, standby.alive, standby.used) == ("replica", True, False)
    assert standby.note == "stands by: it is not the kind of server that is asked for"
    assert (primary.role, primary.alive, primary.used) == ("primary", True, True)
    assert (primary.out, primary.open) == (1, 1)


async def test_a_host_that_does_not_answer_is_told_of(pair: PostgresCluster) -> None:
    pair.servers[0].freeze()
    try:
        config = DatabaseConfig(url=pair.url("postgres"), environment="test")
        async with Database(config) as database, database.session() as session:
            await session.execute(text("select 1"))
            frozen, _ = host_reports(database)
    finally:
        pair.servers[0].thaw()
    assert frozen.alive is False
    assert re.fullmatch(r"at the last attempt, 0\.\d s ago: no answer within \d\.\d s", frozen.note)
