"""What PostgreSQL by asyncpg needs: cheap connects with unchanged results, and a hard end."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import ARRAY, JSON, Column, Integer, MetaData, Table, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY as PG_ARRAY
from sqlalchemy.dialects.postgresql import CIDR, INET, JSONB
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from reviewpoint_db import Database, DatabaseConfig
from reviewpoint_db.postgresql import PostgreSQL
from reviewpoint_db.sqlstate import is_disconnect
from tests.support.pools import make_engine, pool_of, until
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def relay(postgres_url: str) -> Iterator[Relay]:
    with Relay.to(postgres_url) as relay:
        yield relay


def plain_engine(url: str, **options: Any) -> AsyncEngine:
    return create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), **options)


async def round_trips_of_a_connect(relay: Relay, engine: AsyncEngine) -> list[str]:
    """What the second connection of an engine sends; the first one asks the server's version too."""
    async with engine.connect():
        relay.reset()
        async with engine.connect():
            flights = list(relay.counters.flights)
            assert relay.counters.opened == 1
    await engine.dispose()
    return flights


@pytest.mark.parametrize("options", [{}, {"native_inet_types": False}])
async def test_a_new_connection_asks_nothing_after_its_login(
    relay: Relay, postgres_url: str, options: dict[str, Any]
) -> None:
    """SQLAlchemy sets codecs for JSON on each; asyncpg before 0.32 looks their types up for that."""
    url = relay.url(postgres_url)
    ours = await round_trips_of_a_connect(relay, make_engine(url, engine_options=options))
    assert ours == await round_trips_of_a_connect(relay, plain_engine(url, **options))
    if tuple(map(int, asyncpg.__version__.split(".")[:2])) >= (0, 32):
        assert ours == []


metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("plain", JSON),
    Column("binary", JSONB),
    Column("list", PG_ARRAY(JSONB)),
    Column("lists", ARRAY(JSON, dimensions=2)),
    Column("address", INET),
    Column("network", CIDR),
    Column("addresses", PG_ARRAY(INET)),
)
VALUES = [
    {"a": [1, 2.5, None, True], "ü": '"quoted" \\ \u2028'},
    [],
    "text",
    1,
    0.1,
    None,
    10**20,
]


async def results_of(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
        for number, value in enumerate(VALUES):
            row = {
                "id": number,
                "plain": value,
                "binary": value,
                "list": [value, value],
                "lists": [[value], [value]],
                "address": "192.168.0.1/24",
                "network": "10.0.0.0/8",
                "addresses": ["::1", "127.0.0.1"],
            }
            await connection.execute(insert(things).values(row))
        rows = [tuple(row) for row in await connection.execute(select(things))]
        rows += await connection.execute(
            select(things.c.binary["a"], things.c.plain["a"][1], things.c.binary["ü"].astext)
        )
        rows += await connection.execute(
            text("SELECT '{\"a\": 1}'::json, '[1]'::jsonb, ARRAY['1'::jsonb], '::1'::inet")
        )
        rows += await connection.execute(text("SELECT CAST(:v AS jsonb)"), {"v": '{"x": 1}'})
    await engine.dispose()
    return rows


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"native_inet_types": False},
        {"json_deserializer": lambda value: ("own", json.loads(value))},
        {"json_serializer": lambda value: json.dumps({"wrapped": value})},
    ],
)
async def test_json_and_addresses_are_what_plain_sqlalchemy_makes_of_them(
    postgres_url: str, options: dict[str, Any]
) -> None:
    ours = await results_of(make_engine(postgres_url, engine_options=options))
    assert ours == await results_of(plain_engine(postgres_url, **options))
    assert len(ours) == 2 * len(VALUES) + 2
    if not options:
        assert ours[0][1:3] == (VALUES[0], VALUES[0])
        assert isinstance(ours[0][5], ipaddress.IPv4Interface)


async def test_a_commit_that_the_server_makes_a_rollback_raises(postgres_url: str) -> None:
    async with (
        Database(DatabaseConfig(url=postgres_url)) as database,
        database.session() as session,
    ):
        await session.execute(text("SELECT 1"))  # begins the transaction
        raw = await (await session.connection()).get_raw_connection()
        driver: Any = raw.driver_connection
        with pytest.raises(asyncpg.DivisionByZeroError):
            await driver.execute("SELECT 1 / 0")
        with pytest.raises(InvalidRequestError, match="Nothing was stored"):
            await session.commit()
        assert await session.scalar(text("SELECT 1")) == 1


async def test_the_private_names_of_asyncpg_are_as_they_were(postgres_url: str) -> None:
    """Without them, a closed loop's connections would stay at the server."""
    driver = await asyncpg.connect(postgres_url)
    assert driver._transport.get_extra_info("socket").fileno() >= 0
    await driver.close()


async def test_an_abandoned_connection_ends_at_the_server_with_its_loop_closed(
    relay: Relay, postgres_url: str
) -> None:
    def connect_in_a_loop_that_ends() -> Any:
        return asyncio.run(asyncpg.connect(relay.url(postgres_url), ssl=False))

    driver = await asyncio.to_thread(connect_in_a_loop_that_ends)
    assert relay.live == 1
    PostgreSQL().abandon(driver)
    await until(lambda: relay.live == 0)
    PostgreSQL().abandon(driver)  # again is nothing


async def test_an_abandoned_connection_that_the_peer_closed_is_nothing(
    relay: Relay, postgres_url: str
) -> None:
    def connect_in_a_loop_that_ends() -> Any:
        return asyncio.run(asyncpg.connect(relay.url(postgres_url), ssl=False))

    driver = await asyncio.to_thread(connect_in_a_loop_that_ends)
    relay.drop(reset=True)
    PostgreSQL().abandon(driver)


async def test_a_close_that_the_server_does_not_answer_is_cut(
    relay: Relay, postgres_url: str
) -> None:
    driver = await asyncpg.connect(relay.url(postgres_url), ssl=False)
    relay.blackhole()
    await asyncio.wait_for(PostgreSQL().close(driver, 0.1), 5)
    assert driver.is_closed()
    relay.restore()


async def test_a_cut_connection_is_closed_and_in_no_transaction(postgres_url: str) -> None:
    engine = make_engine(postgres_url)
    async with engine.connect():
        driver = next(iter(pool_of(engine)._leased.values())).driver
        backend = PostgreSQL()
        assert not backend.is_closed(driver)
        await driver.execute("BEGIN")
        assert backend.in_transaction(driver)
        backend.interrupt(driver)
        backend.terminate(driver)
        assert backend.is_closed(driver)
    await engine.dispose()


def test_a_driver_out_of_step_with_its_server_has_lost_it() -> None:
    """The moment between the server's farewell and the end of the connection, seen in a restart."""
    error = asyncpg.InternalClientError("cannot switch to state 15; another operation (2)")
    assert is_disconnect(error)
    assert not is_disconnect(asyncpg.InterfaceError("another operation is in progress"))


async def test_the_server_notices_a_host_that_vanishes_within_a_minute(postgres_url: str) -> None:
    """It shows what its kernel has taken for this very connection; its own default is two hours."""
    names = ("keepalives_idle", "keepalives_interval", "keepalives_count", "user_timeout")
    columns = ", ".join(f"current_setting('tcp_{name}')::int" for name in names)
    query = text(f"select {columns}")
    config = DatabaseConfig(url=postgres_url)
    async with Database(config) as database, database.session() as session:
        assert tuple((await session.execute(query)).one()) == (30, 10, 3, 60_000)
