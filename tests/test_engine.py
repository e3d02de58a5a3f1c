"""create_engine: safe errors, a known outcome of COMMIT, and engines that are not ours."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import NullPool, event, literal_column, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from reviewpoint_db.activity import Activity
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.driver_errors import code_of
from reviewpoint_db.engine import adopt_engine, connect_args_of, create_engine, elastic_pool
from reviewpoint_db.errors import (
    CommitOutcomeUnknownError,
    ConfigurationError,
    DatabaseUnavailableError,
    QueryTimeoutError,
)
from reviewpoint_db.pool import ElasticPool
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.sqlstate import is_disconnect
from tests.support.relay import Relay, Trigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncEngine


def _config(url: str, **settings: object) -> DatabaseConfig:
    return DatabaseConfig(url=url, query_timeout=1, connect_timeout=1, **settings)  # type: ignore[arg-type]


def _engine(url: str, **settings: object) -> AsyncEngine:
    return create_engine(_config(url, **settings), Activity("default"))


async def _cancelled(task: asyncio.Task[None], trigger: Trigger, times: int) -> None:
    """Cancel a task that waits for the answer which the relay holds back."""
    async with asyncio.timeout(5):
        while not trigger.fired:
            await asyncio.sleep(0.005)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)


@pytest.fixture
async def relayed(postgres_url: str) -> AsyncIterator[tuple[AsyncEngine, Relay]]:
    with Relay.to(postgres_url) as relay:
        engine = _engine(relay.url(postgres_url))
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE t (v integer)"))
        yield engine, relay
        relay.restore()
        relay.drop()
        await engine.dispose()


async def _rows(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM t"))).scalar_one())


async def test_it_has_our_pool(database_url: str) -> None:
    engine = _engine(database_url)
    assert isinstance(elastic_pool(engine), ElasticPool)
    await engine.dispose()


async def test_engine_options_may_bring_another_pool_and_connect_arguments(
    postgres_url: str,
) -> None:
    options = {
        "poolclass": NullPool,
        "connect_args": {"server_settings": {"application_name": "mine"}},
    }
    engine = _engine(postgres_url, engine_options=options)
    assert elastic_pool(engine) is None
    async with engine.connect() as connection:
        shown = await connection.execute(text("SHOW application_name"))
        assert shown.scalar_one() == "mine"
        # Who names one server setting keeps the others of ours.
        shown = await connection.execute(text("SHOW tcp_keepalives_idle"))
        assert shown.scalar_one() == "30"


def test_an_option_that_sqlalchemy_does_not_know_is_named(sqlite_url: str) -> None:
    options = {"of_another_library": "s3cret", "echo": False}
    config = DatabaseConfig(url=sqlite_url, engine_options=options)
    with pytest.raises(ConfigurationError) as caught:
        create_engine(config, Activity("test"))
    assert str(caught.value).startswith(
        "engine_options = of_another_library: SQLAlchemy has no such option. Fix: see https://docs.sqlalchemy.org/"
    )
    config = DatabaseConfig(url=sqlite_url, engine_options={"execution_options": 3})
    with pytest.raises(TypeError, match="mapping"):
        create_engine(config, Activity("test"))


@pytest.mark.parametrize("read", [False, True])
def test_each_server_setting_of_the_application_wins_by_itself(read: bool) -> None:
    """On the primary and on the replicas alike."""
    url = "postgresql://ann@db/papers"
    given = {"application_name": "mine", "tcp_keepalives_idle": "5", "jit": "off"}
    options = {"connect_args": {"server_settings": given, "timeout": 1.0}}
    config = DatabaseConfig(url=url, read_url=url, engine_options=options)
    own = DatabaseConfig(url=url, read_url=url).connect_args(read=read)
    found = connect_args_of(config, read=read)
    assert found == {**own, "timeout": 1.0, "server_settings": {**own["server_settings"], **given}}
    assert found["server_settings"]["tcp_user_timeout"] == "60000"
    assert given.keys() == {"application_name", "tcp_keepalives_idle", "jit"}, "theirs is changed"


async def test_a_commit_without_an_answer_has_an_unknown_outcome(
    relayed: tuple[AsyncEngine, Relay],
) -> None:
    engine, relay = relayed
    for number, action in enumerate(("cut answer", "hold answer"), 1):
        relay.at("COMMIT;", action)  # type: ignore[arg-type]
        with pytest.raises(CommitOutcomeUnknownError, match="may have been stored"):
            async with engine.begin() as connection:
                await connection.execute(text("INSERT INTO t VALUES (1)"))
        assert await _rows(engine) == number


async def test_a_commit_on_a_connection_known_to_be_lost_was_never_sent(
    relayed: tuple[AsyncEngine, Relay],
) -> None:
    engine, relay = relayed
    with pytest.raises(DBAPIError) as raised:  # noqa: PT012 - the commit at the end raises
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))
            driver = (await connection.get_raw_connection()).driver_connection
            relay.drop()
            async with asyncio.timeout(5):
                while not driver.is_closed():  # type: ignore[union-attr]
                    await asyncio.sleep(0.005)
    assert not isinstance(raised.value, CommitOutcomeUnknownError)
    assert await _rows(engine) == 0


async def test_a_connection_lost_before_commit_has_a_known_outcome(
    relayed: tuple[AsyncEngine, Relay],
) -> None:
    engine, relay = relayed
    relay.at("SELECT 42", "cut")
    with pytest.raises(DBAPIError) as raised:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 42"))
    assert raised.value.connection_invalidated
    assert not isinstance(raised.value, CommitOutcomeUnknownError)


async def test_a_commit_that_the_server_refuses_failed(
    relayed: tuple[AsyncEngine, Relay],
) -> None:
    engine, relay = relayed
    relay.at("COMMIT;", "fail", sqlstate="40001")
    with pytest.raises(DBAPIError) as raised:
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))
    assert not isinstance(raised.value, CommitOutcomeUnknownError)
    assert await _rows(engine) == 0


async def test_a_statement_beyond_its_time_limit_is_named(
    relayed: tuple[AsyncEngine, Relay],
) -> None:
    engine, _ = relayed
    async with engine.connect() as connection:
        with pytest.raises(QueryTimeoutError, match="query_timeout"):
            await connection.execute(text("SELECT pg_sleep(5)"))


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_commit_has_an_unknown_outcome(
    relayed: tuple[AsyncEngine, Relay], times: int
) -> None:
    """Also where it is cancelled again; scopes of anyio do so at each turn of the loop."""
    engine, relay = relayed
    trigger = relay.at("COMMIT;", "hold answer")

    async def store() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO t VALUES (1)"))

    task = asyncio.create_task(store())
    await _cancelled(task, trigger, times)
    with pytest.raises(CommitOutcomeUnknownError):
        await task
    assert await _rows(engine) == 1


async def test_a_statement_that_is_cancelled_twice_stays_cancelled(
    relayed: tuple[AsyncEngine, Relay],
) -> None:
    engine, relay = relayed
    trigger = relay.at("SELECT 42", "hold answer")

    async def ask() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 42"))

    task = asyncio.create_task(ask())
    await _cancelled(task, trigger, 2)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("statement", "unknown"),
    [
        (text("INSERT INTO t VALUES (1)"), True),
        (select(literal_column("1")).select_from(text("t")), False),
    ],
)
async def test_a_statement_that_commits_by_itself_has_an_unknown_outcome_too(
    relayed: tuple[AsyncEngine, Relay], statement: Executable, unknown: bool
) -> None:
    engine, relay = relayed
    relay.at(" t", "cut answer")
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(statement)
    assert isinstance(raised.value, CommitOutcomeUnknownError) is unknown


async def test_so_has_one_of_an_engine_that_is_in_autocommit(postgres_url: str) -> None:
    with Relay.to(postgres_url) as relay:
        options = {"isolation_level": "AUTOCOMMIT"}
        engine = _engine(relay.url(postgres_url), engine_options=options)
        async with engine.connect() as connection:
            await connection.execute(text("CREATE TABLE t (a integer)"))
            relay.at("INSERT", "cut answer")
            with pytest.raises(CommitOutcomeUnknownError):
                await connection.execute(text("INSERT INTO t VALUES (1)"))
        await engine.dispose()


async def test_a_connection_lost_in_a_stream_of_rows_is_told_as_everywhere(
    postgres_url: str,
) -> None:
    engine = _engine(postgres_url)
    rows = text("SELECT pg_backend_pid() FROM generate_series(1, 10000)")
    async with engine.connect() as connection, engine.connect() as other:
        result = await connection.stream(rows)
        (pid,) = await anext(result)
        await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(DatabaseUnavailableError):
            await result.all()
    await engine.dispose()


async def test_an_engine_of_the_applications_gets_our_errors_once(postgres_url: str) -> None:
    engine = create_async_engine(
        postgres_url.replace("postgresql:", "postgresql+asyncpg:"),
        connect_args={"command_timeout": 0.3},
    )
    config = _config(postgres_url)
    assert adopt_engine(adopt_engine(engine, config), config) is engine
    async with engine.connect() as connection:
        with pytest.raises(QueryTimeoutError):
            await connection.execute(text("SELECT pg_sleep(5)"))
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text("SELECT CAST(:v AS integer)"), {"v": "secret"})
    assert "secret" not in str(raised.value)
    await engine.dispose()


async def test_a_refused_connection_is_an_error_of_sqlalchemy() -> None:
    engine = _engine("postgresql://nobody:secret@127.0.0.1:1/none", pool=PoolConfig(timeout=0.2))
    with pytest.raises(OperationalError) as raised:
        await engine.connect()
    assert isinstance(raised.value, DatabaseUnavailableError)
    assert "secret" not in str(raised.value)
    await engine.dispose()


async def test_it_hides_its_parameters_even_from_errors_of_sqlalchemy_itself(
    sqlite_url: str,
) -> None:
    engine = _engine(sqlite_url)
    assert engine.sync_engine.hide_parameters
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text("SELECT * FROM missing WHERE v = :v"), {"v": "secret"})
    assert "secret" not in str(raised.value)
    # What stands in the statement helps, and is no value.
    assert "missing" in str(raised.value).splitlines()[0]
    assert "missing" in safe_error(raised.value)
    await engine.dispose()


async def test_an_error_of_a_bare_connection_bears_no_value(postgres_url: str) -> None:
    engine = create_engine(DatabaseConfig(url=postgres_url), Activity("test"))
    values = {"v": "s3cret"}
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text("SELECT CAST(:v AS integer)"), values)
    told = traceback.format_exception(raised.value)
    assert values["v"] not in "".join(told)
    await engine.dispose()


async def test_a_connection_reset_in_a_statement_is_a_disconnect(
    relayed: tuple[AsyncEngine, Relay],
) -> None:
    engine, relay = relayed
    async with engine.connect() as connection:
        trigger = relay.at("SELECT 42", "hold")
        query = asyncio.create_task(connection.execute(text("SELECT 42")))
        async with asyncio.timeout(5):
            while not trigger.fired:
                await asyncio.sleep(0.005)
        relay.drop(reset=True)
        with pytest.raises(DBAPIError) as raised:
            await query
    assert is_disconnect(raised.value)


async def test_a_bare_error_of_the_system_in_a_statement_is_named(sqlite_url: str) -> None:
    """The driver lets one through only when a write and a reset meet, which no test can arrange."""
    engine = _engine(sqlite_url)

    @event.listens_for(engine.sync_engine, "do_execute")
    def reset(*_: object) -> None:
        raise ConnectionResetError("reset by peer")

    async with engine.connect() as connection:
        with pytest.raises(DatabaseUnavailableError, match="was lost"):
            await connection.execute(text("SELECT 42"))
    await engine.dispose()


async def test_a_refused_login_keeps_its_code_and_tells_no_secret(postgres_url: str) -> None:
    url = postgres_url.replace("postgres:", "nobody:", 1)
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
    adopt_engine(engine, _config(postgres_url))
    with pytest.raises(Exception, match="nobody") as raised:
        await engine.connect()
    assert code_of(raised.value) == "28P01"
    await engine.dispose()
