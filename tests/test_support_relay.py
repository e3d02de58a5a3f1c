"""The relay counts a known exchange exactly, and fails the ways it says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.relay import Action

LOST = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)


@pytest.fixture
def relay(postgres_url: str) -> Iterator[Relay]:
    with Relay.to(postgres_url) as relay:
        yield relay


async def connect(relay: Relay, url: str, **options: object) -> asyncpg.Connection:
    return await asyncpg.connect(relay.url(url), ssl=False, **options)


async def test_a_login_by_scram_takes_three_round_trips(relay: Relay, postgres_url: str) -> None:
    connection = await connect(relay, postgres_url)
    await connection.close()
    assert (relay.counters.opened, relay.counters.login_round_trips) == (1, 3)
    assert relay.counters.round_trips == 0


async def test_asking_for_tls_takes_a_round_trip_more(relay: Relay, postgres_url: str) -> None:
    connection = await asyncpg.connect(relay.url(postgres_url), ssl="prefer")
    await connection.close()
    assert (relay.counters.opened, relay.counters.login_round_trips) == (1, 4)


async def test_a_known_exchange_is_counted_exactly(relay: Relay, postgres_url: str) -> None:
    connection = await connect(relay, postgres_url)
    relay.reset()
    await connection.execute("SELECT 1")
    assert relay.counters.round_trips == 1
    await connection.fetchval("SELECT $1::int", 2)  # prepared, then executed
    assert relay.counters.round_trips == 3
    await connection.fetchval("SELECT $1::int", 3)  # executed again
    assert relay.counters.round_trips == 4
    async with connection.transaction():
        await connection.fetch("SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
    assert relay.counters.round_trips == 8
    assert relay.counters.flights[0] == "Q(SELECT 1)"
    assert list(relay.counters.flights)[-4:] == [
        "Q(BEGIN;)",
        "P(SELECT repeat('x', 1000) FROM generate_series(1, 1000)) D H",
        "B E S",
        "Q(COMMIT;)",
    ]
    await connection.close()
    assert relay.counters.round_trips == 8


async def test_copy_and_errors_are_one_round_trip_each(relay: Relay, postgres_url: str) -> None:
    connection = await connect(relay, postgres_url)
    await connection.execute("CREATE TABLE numbers (n int)")
    relay.reset()
    with pytest.raises(asyncpg.DivisionByZeroError):
        await connection.execute("SELECT 1/0")
    assert relay.counters.round_trips == 1
    await connection.copy_records_to_table("numbers", records=[(n,) for n in range(10)])
    assert await connection.fetchval("SELECT count(*) FROM numbers") == 10
    await connection.close()


async def test_a_cancelled_query_is_seen(relay: Relay, postgres_url: str) -> None:
    connection = await connect(relay, postgres_url)
    with pytest.raises(TimeoutError):
        await connection.execute("SELECT pg_sleep(30)", timeout=0.1)
    assert await connection.fetchval("SELECT 1") == 1
    assert (relay.counters.cancels, relay.counters.opened) == (1, 1)
    await connection.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_drop_cuts_what_is_open_and_lets_new_ones_in(
    relay: Relay, postgres_url: str, reset: bool
) -> None:
    connection = await connect(relay, postgres_url)
    assert relay.live == 1
    relay.drop(reset=reset)
    assert relay.live == 0
    with pytest.raises(LOST):
        await connection.execute("SELECT 1")
    again = await connect(relay, postgres_url)
    assert await again.fetchval("SELECT 42") == 42
    await again.close()


async def test_refuse_refuses_and_spares_what_is_open(relay: Relay, postgres_url: str) -> None:
    connection = await connect(relay, postgres_url)
    relay.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(relay, postgres_url)
    assert await connection.fetchval("SELECT 42") == 42
    relay.restore()
    await (await connect(relay, postgres_url)).close()
    await connection.close()


async def test_a_blackhole_answers_nothing_until_it_is_restored(
    relay: Relay, postgres_url: str
) -> None:
    connection = await connect(relay, postgres_url)
    relay.blackhole()
    with pytest.raises(TimeoutError):
        await connect(relay, postgres_url, timeout=0.2)
    query = asyncio.create_task(connection.fetchval("SELECT 42"))
    done, _ = await asyncio.wait([query], timeout=0.1)
    assert not done
    relay.restore()
    assert await asyncio.wait_for(query, 10) == 42
    await connection.close()


async def test_delay_holds_answers_back(relay: Relay, postgres_url: str) -> None:
    connection = await connect(relay, postgres_url)
    relay.delay(0.2)
    begin = asyncio.get_running_loop().time()
    await connection.execute("SELECT 1")
    assert asyncio.get_running_loop().time() - begin >= 0.2
    await connection.close()


@pytest.mark.parametrize(("action", "rows"), [("cut", 0), ("cut answer", 1)])
async def test_a_commit_is_cut_before_or_after_the_server_has_it(
    relay: Relay, postgres_url: str, action: Action, rows: int
) -> None:
    connection = await connect(relay, postgres_url)
    await connection.execute("CREATE TABLE stored (id int)")
    trigger = relay.at("COMMIT", action)
    await connection.execute("BEGIN; INSERT INTO stored VALUES (1)")
    with pytest.raises(LOST):
        await connection.execute("COMMIT")
    assert trigger.fired
    again = await connect(relay, postgres_url)
    assert await again.fetchval("SELECT count(*) FROM stored") == rows
    await again.close()


@pytest.mark.parametrize(("action", "rows"), [("hold", 0), ("hold answer", 1)])
async def test_a_commit_is_held_before_or_after_the_server_has_it(
    relay: Relay, postgres_url: str, action: Action, rows: int
) -> None:
    connection = await connect(relay, postgres_url)
    await connection.execute("CREATE TABLE stored (id int)")
    relay.at("COMMIT", action)
    await connection.execute("BEGIN; INSERT INTO stored VALUES (1)")
    with pytest.raises(TimeoutError):
        await connection.execute("COMMIT", timeout=0.2)
    connection.terminate()
    again = await connect(relay, postgres_url)
    assert await again.fetchval("SELECT count(*) FROM stored") == rows
    await again.close()


async def test_a_commit_is_made_to_fail_with_a_sqlstate(relay: Relay, postgres_url: str) -> None:
    connection = await connect(relay, postgres_url)
    await connection.execute("CREATE TABLE stored (id int)")
    relay.at("COMMIT", "fail", sqlstate="40001")
    await connection.execute("BEGIN; INSERT INTO stored VALUES (1)")
    with pytest.raises(asyncpg.SerializationError):
        await connection.execute("COMMIT")
    assert not connection.is_in_transaction()
    assert await connection.fetchval("SELECT count(*) FROM stored") == 0
    await connection.close()


async def test_a_statement_is_replaced_once(relay: Relay, postgres_url: str) -> None:
    connection = await connect(relay, postgres_url)
    relay.at("SELECT 1", "rewrite", message="SELECT 42")
    relay.at("SELECT 2", "rewrite", message="SELECT 'another'")
    assert await connection.fetchval("SELECT 1") == 42
    assert await connection.execute("SELECT 2") == "SELECT 1"
    await connection.close()
