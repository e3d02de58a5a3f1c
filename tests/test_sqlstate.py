"""Errors as the real drivers raise them: their codes, their answers, and what helps."""

from __future__ import annotations

import socket
import sqlite3
import ssl
from typing import TYPE_CHECKING

import advanced_alchemy.exceptions as alchemy
import asyncpg
import pytest
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from reviewpoint_db import errors
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.driver_errors import code_of
from reviewpoint_db.sqlstate import (
    ErrorAnswer,
    answer_for,
    connect_hint,
    is_disconnect,
    is_refused_login,
    is_serialization_failure,
    is_transient_connect,
    is_unreachable,
    log_hint,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.postgres import PostgresServer


def engine_for(url: str) -> AsyncEngine:
    config = DatabaseConfig(url=url, connect_timeout=5)
    return create_async_engine(config.sqlalchemy_url, connect_args=config.connect_args())


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = engine_for(database_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE papers (id int PRIMARY KEY, n int NOT NULL)"))
        await connection.execute(text("INSERT INTO papers VALUES (1, 1)"))
    yield engine
    await engine.dispose()


async def failure(engine: AsyncEngine, *statements: str) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT012 - any error is looked at
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    return caught.value


def raised(code: str) -> Exception:
    """An error of the server, as asyncpg makes it."""
    error: Exception = asyncpg.PostgresError.new({"C": code, "M": "text"})
    return error


def wrap(error: BaseException) -> exc.DBAPIError:
    return exc.OperationalError("SELECT 1", None, error)


def of_sqlite(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("text")
    error.sqlite_errorname = name
    return error


async def test_a_violated_constraint_is_a_conflict(engine: AsyncEngine) -> None:
    duplicate = await failure(engine, "INSERT INTO papers VALUES (1, 1)")
    missing = await failure(engine, "INSERT INTO papers VALUES (2, NULL)")
    codes = {code_of(duplicate), code_of(missing)}
    assert codes in (
        {"23505", "23502"},
        {"SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_NOTNULL"},
    )
    answer = ErrorAnswer(409, code_of(missing), "The change conflicts with existing data.", None)
    assert answer_for(missing) == answer
    assert answer_for(duplicate).status == 409


async def test_a_missing_table_names_the_migration_command(engine: AsyncEngine) -> None:
    error = await failure(engine, "SELECT * FROM nowhere")
    assert answer_for(error).status == 500
    assert "litestar database upgrade" in (log_hint(error) or "")


async def test_a_mistake_in_the_statement_has_no_hint(engine: AsyncEngine) -> None:
    error = await failure(engine, "SELEC 1")
    assert (answer_for(error).status, log_hint(error)) == (500, None)


async def test_a_locked_sqlite_file_is_for_later(sqlite_url: str) -> None:
    first, second = engine_for(sqlite_url), engine_for(f"{sqlite_url}?timeout=0")
    async with first.connect() as connection:
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
        error = await failure(second, "CREATE TABLE t (a)")
        await connection.rollback()
    await first.dispose()
    await second.dispose()
    assert (code_of(error), answer_for(error).status) == ("SQLITE_BUSY", 503)


def test_a_missing_folder_is_hinted_at(tmp_path: Path) -> None:
    # Not by aiosqlite: its thread outlives a failed connect, and complains when the loop is gone.
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(tmp_path / "nowhere" / "x.db")
    assert (code_of(caught.value), answer_for(caught.value).status) == ("SQLITE_CANTOPEN", 500)
    assert "folder" in (log_hint(caught.value) or "")


async def test_a_terminated_connection_is_lost(postgres_url: str) -> None:
    engine = engine_for(postgres_url)
    error = await failure(engine, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert is_disconnect(error)
    assert answer_for(error).status == 503
    await engine.dispose()


async def test_a_statement_that_was_prepared_before_a_migration_may_be_tried_again(
    postgres_url: str,
) -> None:
    """Asyncpg refuses it once: the next one is prepared anew."""
    engine, migration = engine_for(postgres_url), engine_for(postgres_url)
    async with migration.begin() as connection:
        await connection.execute(text("CREATE TABLE counters (n integer)"))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT * FROM counters"))
    async with migration.begin() as connection:
        await connection.execute(text("ALTER TABLE counters ALTER n TYPE bigint"))
    error = await failure(engine, "SELECT * FROM counters")
    assert (code_of(error), answer_for(error).status) == ("0A000", 503)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT * FROM counters"))
    await engine.dispose()
    await migration.dispose()


async def test_a_serialization_failure_may_be_tried_again(postgres_url: str) -> None:
    engine = engine_for(postgres_url).execution_options(isolation_level="SERIALIZABLE")
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE counters (id int, n int)"))
        await connection.execute(text("INSERT INTO counters VALUES (1, 0)"))
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(text("SELECT * FROM counters"))
        await two.execute(text("UPDATE counters SET n = n + 1"))
        await two.commit()
        with pytest.raises(exc.DBAPIError) as caught:
            await one.execute(text("UPDATE counters SET n = n + 1"))
    await engine.dispose()
    assert is_serialization_failure(caught.value)
    assert not is_disconnect(caught.value)
    assert answer_for(caught.value, retry_after=3.0) == ErrorAnswer(
        503, "40001", "The change collided with another one. Please try again.", 3.0
    )


async def test_a_stopped_server_may_come_back(own_postgres: PostgresServer, own_url: str) -> None:
    own_postgres.stop()
    engine = engine_for(own_url)
    error = await failure(engine, "SELECT 1")
    assert isinstance(error, OSError)
    assert is_transient_connect(error)
    assert answer_for(error).status == 503


async def test_a_refused_password_stays_refused(postgres_url: str) -> None:
    config = DatabaseConfig(url=postgres_url)
    engine = create_async_engine(
        config.sqlalchemy_url.set(password="wrong"), connect_args=config.connect_args()
    )
    error = await failure(engine, "SELECT 1")
    assert code_of(error) == "28P01"
    assert not is_transient_connect(error)
    assert not is_disconnect(error)
    assert answer_for(error).status == 500
    assert "password" in (log_hint(error) or "")


async def test_no_primary_among_the_hosts_may_pass(postgres_url: str) -> None:
    engine = engine_for(f"{postgres_url}?target_session_attrs=standby")
    error = await failure(engine, "SELECT 1")
    assert is_transient_connect(error)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("08006", 503),
        ("25006", 503),
        ("25P03", 503),
        ("40001", 503),
        ("40P01", 503),
        ("53300", 503),
        ("55P03", 503),
        ("57014", 503),
        ("57P01", 503),
        ("57P03", 503),
        ("23514", 409),
        ("22P02", 500),
        ("42P01", 500),
        ("53100", 500),
        ("XX000", 500),
    ],
)
def test_the_answer_for_an_error_of_the_server(code: str, status: int) -> None:
    answer = answer_for(wrap(raised(code)))
    assert (answer.status, answer.code) == (status, code)
    assert answer.retry_after == (1.0 if status == 503 else None)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("SQLITE_BUSY", 503),
        ("SQLITE_BUSY_SNAPSHOT", 503),
        ("SQLITE_LOCKED_SHAREDCACHE", 503),
        ("SQLITE_CONSTRAINT_UNIQUE", 409),
        ("SQLITE_FULL", 500),
    ],
)
def test_the_answer_for_an_error_of_sqlite(name: str, status: int) -> None:
    assert answer_for(wrap(of_sqlite(name))).status == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TimeoutError(), 503),
        (ConnectionRefusedError(), 503),
        (exc.TimeoutError("queue"), 503),
        (exc.DBAPIError("SELECT 1", None, Exception(), connection_invalidated=True), 503),
        (exc.IntegrityError("SELECT 1", None, Exception()), 409),
        (exc.ProgrammingError("SELECT 1", None, Exception()), 500),
        (ValueError(), 500),
        (errors.DatabaseUnavailableError("x"), 503),
        (errors.PoolTimeoutError("x"), 503),
        (errors.QueryTimeoutError("x"), 503),
        (errors.ConfigurationError("x"), 500),
        (errors.SessionClosedError("x"), 500),
        (errors.ReadOnlySessionError("x"), 500),
        (errors.CommitOutcomeUnknownError("x", orig=ConnectionResetError()), 500),
        (alchemy.NotFoundError("x"), 404),
        (alchemy.IntegrityError("x"), 409),
        (alchemy.DuplicateKeyError("x"), 409),
        (alchemy.RepositoryError("x"), 500),
    ],
)
def test_the_answer_for_an_error_without_a_code(error: Exception, status: int) -> None:
    assert answer_for(error).status == status
    assert (answer_for(error).retry_after is None) == (status != 503)


def test_an_unknown_outcome_is_told_to_the_client() -> None:
    error = errors.CommitOutcomeUnknownError("x", orig=raised("57P01"))
    assert answer_for(error).code == "57P01"
    assert "may have been stored" in answer_for(error).detail


@pytest.mark.parametrize(
    ("cause", "status"),
    [(raised("57P01"), 503), (raised("23505"), 409), (raised("42601"), 500)],
)
def test_a_repository_error_is_what_its_cause_is(cause: Exception, status: int) -> None:
    """advanced-alchemy makes an IntegrityError of every error of a statement."""
    error = alchemy.IntegrityError("x")
    error.__cause__ = wrap(cause)
    assert answer_for(error).status == status


def test_the_code_is_found_below_a_cause() -> None:
    error = RuntimeError()
    error.__cause__ = wrap(raised("40P01"))
    assert code_of(error) == "40P01"
    assert is_serialization_failure(error)


def test_a_circle_of_causes_ends() -> None:
    one, two = RuntimeError(), RuntimeError()
    one.__cause__, two.__cause__ = two, one
    assert code_of(one) is None


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ConnectionRefusedError(), True),
        (FileNotFoundError(), True),
        (TimeoutError(), True),
        (ssl.SSLEOFError(), True),
        (ssl.SSLCertVerificationError(), False),
        (ssl.SSLError(), False),
        (PermissionError(), False),
        (ValueError(), False),
        (raised("53300"), True),
        (raised("57P03"), True),
        (raised("08006"), True),
        (raised("3D000"), False),
        (raised("57P05"), False),
    ],
)
def test_what_an_attempt_to_connect_may_repeat(error: Exception, transient: bool) -> None:
    assert is_transient_connect(error) == transient


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (raised("08003"), True),
        (raised("57P05"), True),
        (raised("57014"), False),
        (of_sqlite("SQLITE_BUSY"), False),
        (TimeoutError(), True),
        (exc.DBAPIError("SELECT 1", None, Exception()), False),
    ],
)
def test_what_means_a_lost_connection(error: Exception, lost: bool) -> None:
    assert is_disconnect(error) == lost


def test_an_error_without_a_code_has_no_hint() -> None:
    assert log_hint(ValueError()) is None


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (raised("28P01"), True),
        (raised("28000"), True),
        (raised("3D000"), True),
        (raised("42P01"), False),
        (OSError(), False),
    ],
)
def test_what_a_server_lets_nobody_in_with(error: Exception, refused: bool) -> None:
    assert is_refused_login(error) == refused


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ConnectionRefusedError(), "start the database, or correct host and port of the URL"),
        (
            OSError("Multiple exceptions: ..."),
            "start the database, or correct host and port of the ",
        ),
        (
            socket.gaierror(-2, "Name or service not known"),
            "no host has this name; correct the host",
        ),
        (FileNotFoundError(), "there is no such socket; start the database, or correct the host"),
        (TimeoutError(), "nothing answers there; check host, port and the firewalls in between"),
        (
            ConnectionError("PostgreSQL server at x rejected SSL upgrade"),
            "The server offers no TLS: ",
        ),
        (
            ssl.SSLError(1, "wrong version number"),
            "Check the host, the port and the TLS settings of ",
        ),
        (RuntimeError(), "start the database, or correct host, port, user and password of the URL"),
    ],
)
def test_what_to_do_about_a_database_that_cannot_be_reached(error: Exception, hint: str) -> None:
    assert connect_hint(error).startswith(hint)
    unreachable = errors.DatabaseUnavailableError("message", orig=error)
    assert connect_hint(unreachable).startswith(hint)
    assert is_unreachable(unreachable)
    assert not is_unreachable(error)


def test_only_the_database_is_unreachable() -> None:
    assert is_unreachable(exc.OperationalError("select 1", {}, OSError()))
    assert not is_unreachable(errors.PoolTimeoutError("message"))
    assert not is_unreachable(exc.OperationalError("select 1", {}, ValueError()))
