"""The servers, the relay and the clients that the other tests trust."""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support import binaries
from tests.support.postgres import PostgresServer, RemoteServer
from tests.support.run import URL_VARIABLE, Run

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_shared_server_takes_the_url_with_its_hostile_password(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT 42") == 42
    await connection.close()


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_finds_its_database_empty(postgres_url: str, turn: int) -> None:
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT to_regclass('left_behind')") is None
    assert await connection.fetchval("SHOW work_mem") == "4MB"
    await connection.execute("CREATE TABLE left_behind (id int); CREATE SCHEMA other")
    await connection.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''5MB''',"
        " current_database()); END $$"
    )
    connection.terminate()


async def test_a_session_left_in_a_transaction_does_not_block_the_next_test(
    postgres: RemoteServer, postgres_url: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("CREATE TABLE locked (id int)")
    await connection.execute("BEGIN; LOCK TABLE locked")
    name = postgres_url.rsplit("/", 1)[1]
    assert [session.state for session in postgres.sessions(name)] == ["idle in transaction"]
    postgres.clean_database(name)
    assert postgres.sessions(name) == []
    connection.terminate()


def test_psql_tells_what_the_server_refused(postgres: RemoteServer) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        postgres.psql("SELECT 1/0")
    assert "division by zero" in caught.value.stderr


async def test_a_wrong_password_is_refused(own_postgres: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(own_postgres.url("postgres", password="wrong"))


async def test_a_restart_cuts_sessions_and_keeps_the_port(
    own_postgres: PostgresServer, own_url: str
) -> None:
    connection = await asyncpg.connect(own_url)
    await connection.execute("CREATE TABLE kept (id int)")
    own_postgres.restart()
    with pytest.raises((asyncpg.PostgresError, OSError, asyncpg.InterfaceError)):
        await connection.execute("SELECT 1")
    again = await asyncpg.connect(own_url)
    assert await again.fetchval("SELECT count(*) FROM kept") == 0
    await again.close()


async def test_a_stopped_server_refuses(own_postgres: PostgresServer, own_url: str) -> None:
    own_postgres.stop()
    assert not own_postgres.running
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(own_url)


async def test_a_frozen_server_is_silent_until_it_is_thawed(
    own_postgres: PostgresServer, own_url: str
) -> None:
    connection = await asyncpg.connect(own_url)
    own_postgres.freeze()
    assert own_postgres.running
    with pytest.raises(TimeoutError):
        await asyncpg.connect(own_url, timeout=0.2)
    own_postgres.thaw()
    assert await connection.fetchval("SELECT 42") == 42
    await connection.close()


def test_a_frozen_server_can_be_stopped(own_postgres: PostgresServer) -> None:
    own_postgres.freeze()
    begin = time.monotonic()
    own_postgres.stop()
    assert time.monotonic() - begin < 10


def test_settings_take_effect_at_the_next_start(own_postgres: PostgresServer) -> None:
    own_postgres.set(max_connections="23")
    own_postgres.psql("CREATE ROLE left_behind")
    own_postgres.restart()
    assert own_postgres.psql("SHOW max_connections") == "23"


def test_a_server_whose_password_changed_is_replaced(own_postgres: PostgresServer) -> None:
    own_postgres.psql("ALTER ROLE postgres PASSWORD 'rotated'")
    with pytest.raises(subprocess.CalledProcessError):
        own_postgres.psql("SELECT 1")


def test_the_test_after_it_finds_a_working_server(own_postgres: PostgresServer) -> None:
    assert own_postgres.psql("SELECT 1") == "1"
    assert own_postgres.psql("SHOW max_connections") == "100"
    assert own_postgres.databases() == []
    assert own_postgres.roles() == []


@pytest.mark.parametrize("version", [16, 18])
def test_programs_in_a_folder_closed_to_the_servers_user_are_copied(
    run: Run, version: binaries.Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "reachable", lambda _: False)
    folder = run.folder / f"closed-{version}-{run.worker}"
    folder.mkdir()
    server = PostgresServer(folder / "own", version=version)
    try:
        server.start()
        assert server.psql("SHOW server_version_num")[:2] == str(version)
    finally:
        server.remove()
        shutil.rmtree(folder)


def test_a_server_of_somebody_else_is_found_by_its_url(
    postgres: RemoteServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(URL_VARIABLE, postgres.admin_url)
    server = Run(tmp_path).shared_server()
    assert not isinstance(server, PostgresServer)
    assert server.psql("SELECT 1") == "1"
