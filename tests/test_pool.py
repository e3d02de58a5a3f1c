"""The pool on real databases: elastic, fair, verified, bounded, and never losing a slot."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import itertools
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import event, exc, text
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool, Pool, StaticPool
from sqlalchemy.util import greenlet_spawn

from reviewpoint_db.activity import Activity
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.context import current_origin
from reviewpoint_db.engine import create_engine, elastic_pool
from reviewpoint_db.errors import DatabaseUnavailableError, PoolTimeoutError
from reviewpoint_db.pool import ElasticPool
from reviewpoint_db.pooled import open_record
from tests.support.pools import backend_pid, engine_with_pool, make_engine, pool_of, until
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from tests.support.postgres import PostgresServer, RemoteServer


@pytest.fixture
def relay(postgres_url: str) -> Iterator[Relay]:
    with Relay.to(postgres_url) as relay:
        yield relay


def gauges(engine: AsyncEngine) -> tuple[int, int, int, int, int]:
    """Idle, in use, beyond the size, open, waiting."""
    pool = pool_of(engine)
    return (
        pool.checkedin(),
        pool.checkedout(),
        pool.overflow(),
        pool.total(),
        pool.waiting(),
    )


def activity_of(engine: AsyncEngine) -> Activity:
    return pool_of(engine).activity


async def ask(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        result: int = (await connection.execute(text("SELECT 1"))).scalar_one()
        return result


async def hold(engine: AsyncEngine, number: int) -> list[AsyncConnection]:
    return [await engine.connect() for _ in range(number)]


async def release(connections: list[AsyncConnection]) -> None:
    for connection in connections:
        await connection.close()


async def queue_up(engine: AsyncEngine, number: int = 1) -> list[asyncio.Task[Any]]:
    """Tasks that wait for a connection, in this order, and give it back at once."""
    before = pool_of(engine).waiting()
    tasks = []
    for arrival in range(1, number + 1):
        tasks.append(asyncio.create_task(ask(engine)))
        await until(lambda arrival=arrival: pool_of(engine).waiting() == before + arrival)  # type: ignore[misc]
    return tasks


async def collected(task: asyncio.Task[Any]) -> None:
    await task
    gc.collect()


async def no_slot_is_lost(engine: AsyncEngine) -> None:
    """All slots can be used at once, and nothing is left out afterwards."""
    pool = pool_of(engine)
    await until(lambda: not pool._supply.closings and not pool._supply.openings)
    limit = int(pool._slots.limit)
    connections = await asyncio.wait_for(hold(engine, limit), 10)
    assert pool.checkedout() == pool.total() == limit
    await release(connections)
    assert (pool.checkedout(), pool.checkedin(), pool.total()) == (0, limit, limit)


# -- elastic -----------------------------------------------------------------------------------


async def test_burst_connections_stay_for_the_next_burst(database_url: str) -> None:
    async with engine_with_pool(database_url, size=1, max_overflow=4) as engine:
        for _ in range(3):
            await release(await hold(engine, 5))
        assert gauges(engine) == (5, 0, 4, 5, 0)
        assert activity_of(engine).snapshot().opened == 5


async def test_idle_burst_connections_retire_and_those_within_the_size_stay(
    database_url: str,
) -> None:
    options = {"size": 2, "max_overflow": 3, "idle_timeout": 0.05}
    async with engine_with_pool(database_url, **options) as engine:
        await release(await hold(engine, 5))
        await until(lambda: gauges(engine) == (2, 0, 0, 2, 0))
        closed = activity_of(engine).snapshot().closed
        assert closed == {"idle": 3}
        # The graceful end of a connection is no invalidation.
        assert pool_of(engine).invalidated() == 0


async def test_a_connection_in_use_keeps_the_upkeep_from_nothing(database_url: str) -> None:
    async with engine_with_pool(database_url, size=1, idle_timeout=0.05) as engine:
        first, second = await hold(engine, 2)
        await first.close()
        await until(lambda: pool_of(engine).checkedin() == 0)
        assert pool_of(engine)._supply._upkeep is None  # nothing is idle, so nothing is to do
        await second.close()
        assert pool_of(engine)._supply._upkeep is not None


@pytest.mark.parametrize("moment", ["at checkout", "at return", "when idle"])
async def test_every_connection_retires_at_the_end_of_its_life(
    database_url: str, moment: str
) -> None:
    async with engine_with_pool(database_url, size=1, max_overflow=0) as engine:
        async with engine.connect() as connection:
            first = (await connection.get_raw_connection()).driver_connection
            pooled = next(iter(pool_of(engine)._leased.values()))
            assert 0.9 * 1800 <= pooled.retire_at - time.monotonic() <= 1800
            if moment == "at return":
                pooled.retire_at = 0
        pooled.retire_at = 0
        if moment == "when idle":
            pool_of(engine)._supply._maintain()
            await until(lambda: pool_of(engine).total() == 0)
        async with engine.connect() as connection:
            assert (await connection.get_raw_connection()).driver_connection is not first
        assert activity_of(engine).snapshot().closed == {"lifetime": 1}
        await no_slot_is_lost(engine)


async def test_lifetimes_differ_so_that_a_fleet_does_not_reconnect_at_once(
    sqlite_url: str,
) -> None:
    async with engine_with_pool(sqlite_url, size=5) as engine:
        connections = await hold(engine, 5)
        assert len({pooled.retire_at for pooled in pool_of(engine)._leased.values()}) == 5
        await release(connections)


async def test_without_a_lifetime_connections_live_for_ever(sqlite_url: str) -> None:
    pool_class = make_engine(sqlite_url).sync_engine.pool
    pool = pool_class.recreate()
    assert isinstance(pool, ElasticPool)
    pool._supply.lifetime = -1
    connection = await greenlet_spawn(pool.connect)
    assert next(iter(pool._leased.values())).retire_at == float("inf")
    await greenlet_spawn(connection.close)
    await greenlet_spawn(pool.dispose)


# -- fair --------------------------------------------------------------------------------------


async def test_waiters_are_served_in_the_order_of_their_arrival(database_url: str) -> None:
    async with engine_with_pool(database_url, size=1, max_overflow=1) as engine:
        held = await hold(engine, 2)
        served: list[int] = []

        async def use(number: int) -> None:
            async with engine.connect() as connection:
                served.append(number)
                await connection.execute(text("SELECT 1"))

        tasks = []
        for number in range(30):
            tasks.append(asyncio.create_task(use(number)))
            await asyncio.sleep(0)
        assert pool_of(engine).waiting() == 30
        await release(held)
        newcomer = asyncio.create_task(use(30))
        await asyncio.gather(*tasks, newcomer)
        assert served == list(range(31))
        assert activity_of(engine).snapshot().waited == 2 + 31


async def test_one_whose_connection_was_dead_keeps_the_place(
    postgres_url: str, postgres: RemoteServer
) -> None:
    async with engine_with_pool(postgres_url, size=1, max_overflow=0) as engine:
        async with engine.connect() as connection:
            pid = await backend_pid(connection)
        await kill(engine, postgres, pid)
        served: list[int] = []

        async def use(number: int) -> None:
            async with engine.connect() as connection:
                served.append(number)
                await connection.execute(text("SELECT 1"))

        await asyncio.gather(*(use(number) for number in range(5)))
        assert served == [0, 1, 2, 3, 4]


# -- verified ----------------------------------------------------------------------------------


async def kill(engine: AsyncEngine, server: RemoteServer, *pids: int) -> None:
    """Ends backends of idle connections, and returns when the driver has seen their end."""
    for pid in pids:
        ended = await asyncio.to_thread(server.psql, f"SELECT pg_terminate_backend({pid}, 5000)")
        assert ended == "t"
    drivers = [pooled.driver for pooled in pool_of(engine)._slots.idle]
    await until(lambda: all(driver.is_closed() for driver in drivers))


async def test_killed_connections_are_replaced_without_a_failure_or_a_ping(
    postgres_url: str, postgres: RemoteServer
) -> None:
    async with engine_with_pool(postgres_url, size=5, max_overflow=0) as engine:
        held = await hold(engine, 5)
        pids = [await backend_pid(connection) for connection in held]
        await release(held)
        await kill(engine, postgres, *pids)
        assert [await ask(engine) for _ in range(20)] == [1] * 20
        assert await asyncio.gather(*(ask(engine) for _ in range(20))) == [1] * 20
        snapshot = activity_of(engine).snapshot()
        assert snapshot.pings == 0
        assert snapshot.closed["lost"] >= 1
        await no_slot_is_lost(engine)


async def test_idle_dead_connections_are_dropped_by_the_upkeep(
    postgres_url: str, postgres: RemoteServer
) -> None:
    async with engine_with_pool(postgres_url, size=3, idle_timeout=0.05) as engine:
        held = await hold(engine, 2)
        pids = [await backend_pid(connection) for connection in held]
        await release(held)
        await kill(engine, postgres, *pids)
        await until(lambda: gauges(engine) == (0, 0, 0, 0, 0))
        assert pool_of(engine).invalidated() == 2


async def round_trips(relay: Relay, engine: AsyncEngine) -> list[str]:
    """What one checkout and return sends."""
    relay.reset()
    async with engine.connect():
        pass
    return list(relay.counters.flights)


async def test_a_connection_used_a_moment_ago_is_trusted(relay: Relay, postgres_url: str) -> None:
    async with engine_with_pool(relay.url(postgres_url), ping_after_idle=60) as engine:
        await ask(engine)
        assert await round_trips(relay, engine) == []


async def test_a_ping_is_exactly_one_round_trip(relay: Relay, postgres_url: str) -> None:
    async with engine_with_pool(relay.url(postgres_url), ping_after_idle=0) as engine:
        await ask(engine)
        assert await round_trips(relay, engine) == ["Q(SELECT 1)"]
        snapshot = activity_of(engine).snapshot()
        assert (snapshot.pings, snapshot.closed, snapshot.opened) == (1, {}, 1)


async def test_a_new_connection_is_not_pinged(relay: Relay, postgres_url: str) -> None:
    async with engine_with_pool(relay.url(postgres_url), ping_after_idle=0.5) as engine:
        await ask(engine)
        assert activity_of(engine).snapshot().pings == 0


async def test_a_connection_handed_over_is_not_pinged(relay: Relay, postgres_url: str) -> None:
    """It was in use a moment ago, however long its holder had it."""
    options = {"size": 1, "max_overflow": 0, "ping_after_idle": 0.5}
    async with engine_with_pool(relay.url(postgres_url), **options) as engine:
        connection = await engine.connect()
        next(iter(pool_of(engine)._leased.values())).idle_since = 0
        waiting = await queue_up(engine)
        await connection.close()
        await asyncio.gather(*waiting)
        assert activity_of(engine).snapshot().pings == 0


async def test_after_one_was_lost_the_others_are_pinged(relay: Relay, postgres_url: str) -> None:
    async with engine_with_pool(relay.url(postgres_url), ping_after_idle=60) as engine:
        await ask(engine)
        pool_of(engine).suspect()
        assert await round_trips(relay, engine) == ["Q(SELECT 1)"]
        assert await round_trips(relay, engine) == []


async def test_a_failed_ping_costs_no_slot_and_no_error(relay: Relay, postgres_url: str) -> None:
    options = {"size": 1, "max_overflow": 0, "ping_after_idle": 0}
    async with engine_with_pool(relay.url(postgres_url), **options) as engine:
        await ask(engine)
        relay.at("SELECT 1", "cut")
        assert await round_trips(relay, engine)
        assert activity_of(engine).snapshot().closed == {"ping_failed": 1}
        await no_slot_is_lost(engine)


async def test_a_silent_connection_fails_its_ping_in_time(relay: Relay, postgres_url: str) -> None:
    options = {"size": 1, "max_overflow": 0, "ping_after_idle": 0, "connect_timeout": 0.2}
    async with engine_with_pool(relay.url(postgres_url), **options) as engine:
        await ask(engine)
        relay.at("SELECT 1", "hold")
        started = time.monotonic()
        assert await ask(engine) == 1
        assert time.monotonic() - started < 5
        assert activity_of(engine).snapshot().closed == {"ping_failed": 1}


# -- one deadline -------------------------------------------------------------------------------


async def test_a_full_pool_says_who_holds_its_connections(database_url: str) -> None:
    activity = Activity("papers")
    events: list[tuple[str, dict[str, Any]]] = []
    activity.subscribe(lambda name, data: events.append((name, data)))
    options = {"size": 1, "max_overflow": 0, "timeout": 0.1, "activity": activity}
    async with engine_with_pool(database_url, **options) as engine:
        token = current_origin.set("nightly import")
        connection = await engine.connect()
        current_origin.reset(token)
        with pytest.raises(PoolTimeoutError) as caught:
            await ask(engine)
        message = str(caught.value)
        assert "'papers'" in message
        assert "within 0.1 s" in message
        assert "all 1 (pool.size 1 + pool.max_overflow 0) are in use" in message
        assert "are in use; nobody else was waiting. Held by: nightly import (for 0." in message
        assert "raise pool.size" in message
        assert isinstance(caught.value, exc.TimeoutError)
        assert events == [("db.pool_exhausted", {"database": "papers", "message": message})]
        assert activity.snapshot().timed_out == 1
        await connection.close()
        await no_slot_is_lost(engine)


async def test_those_who_time_out_together_say_how_many_they_were(sqlite_url: str) -> None:
    async with engine_with_pool(sqlite_url, size=1, max_overflow=0, timeout=0.1) as engine:
        async with engine.connect():
            tasks = await queue_up(engine, 3)
            time.sleep(0.15)  # noqa: ASYNC251 - so that one look finds all of them late
            errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert ["; 3 were waiting, this one included. Held" in str(error) for error in errors] == [
            True
        ] * 3
        assert pool_of(engine).waiting() == 0


async def test_a_full_pool_is_an_event_once_until_something_is_free(sqlite_url: str) -> None:
    events: list[str] = []
    async with engine_with_pool(sqlite_url, size=1, max_overflow=0, timeout=0.05) as engine:
        activity_of(engine).subscribe(lambda name, _: events.append(name))
        for episode in range(1, 3):
            async with engine.connect():
                for _ in range(3):
                    with pytest.raises(PoolTimeoutError):
                        await ask(engine)
            assert events == ["db.pool_exhausted"] * episode
        assert activity_of(engine).snapshot().timed_out == 6


async def test_a_holder_whose_task_ended_is_called_a_leak(sqlite_url: str) -> None:
    async with engine_with_pool(sqlite_url, size=1, max_overflow=0, timeout=0.1) as engine:

        async def forget() -> AsyncConnection:
            return await engine.connect()

        leaked = await asyncio.create_task(forget(), name="forgetful")
        with pytest.raises(PoolTimeoutError, match="its task has ended: a leak"):
            await ask(engine)
        await leaked.close()


async def test_a_database_that_is_down_is_told_from_a_full_pool(
    relay: Relay, postgres_url: str
) -> None:
    relay.refuse()
    async with engine_with_pool(relay.url(postgres_url), timeout=0.3) as engine:
        with pytest.raises(
            DatabaseUnavailableError, match=r"within 0\.3 s \(last attempt: "
        ) as caught:
            await ask(engine)
        assert isinstance(caught.value, exc.OperationalError)
        assert isinstance(caught.value.__cause__, OSError)
        outage = pool_of(engine).outage()
        assert outage is not None
        assert "refused" in outage.lower()
        relay.restore()
        pool_of(engine)._timeout = 10
        assert await ask(engine) == 1
        assert pool_of(engine).outage() is None


async def test_a_server_that_says_nothing_is_told_from_a_full_pool(
    relay: Relay, postgres_url: str
) -> None:
    """The deadline comes before the connect's own limit, so that nothing failed yet."""
    relay.blackhole()
    engine = make_engine(relay.url(postgres_url), timeout=0.2)
    with pytest.raises(DatabaseUnavailableError, match="no answer"):
        await ask(engine)
    relay.restore()
    await engine.dispose()


async def test_a_silent_setup_of_a_new_connection_is_bounded_too(
    relay: Relay, postgres_url: str
) -> None:
    """Statements at the first connect have the statements' limit, 30 s, and a lock around them."""
    options = {"timeout": 1.5, "connect_timeout": 0.3}
    async with engine_with_pool(relay.url(postgres_url), **options) as engine:
        relay.at("select pg_catalog.version()", "hold")
        started = time.monotonic()
        assert await asyncio.gather(*(ask(engine) for _ in range(3))) == [1] * 3
        assert time.monotonic() - started < 1.5
        # None is stranded; the relay's own end of the silent one stays.
        await until(lambda: relay.live == pool_of(engine).total() + 1)


async def test_verification_and_connect_share_one_deadline(relay: Relay, postgres_url: str) -> None:
    """Each alone would be in time: a ping of 0.4 s, then a connect of 0.4 s."""
    options = {
        "size": 1,
        "max_overflow": 0,
        "ping_after_idle": 0,
        "timeout": 0.6,
        "connect_timeout": 0.4,
    }
    async with engine_with_pool(relay.url(postgres_url), **options) as engine:
        await ask(engine)
        relay.blackhole()
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailableError):
            await ask(engine)
        assert 0.5 < time.monotonic() - started < 0.8
        assert activity_of(engine).snapshot().closed == {"ping_failed": 1}
        relay.restore()


async def test_a_ping_that_lasts_until_the_deadline_is_no_full_pool(
    relay: Relay, postgres_url: str
) -> None:
    options = {"size": 1, "max_overflow": 0, "ping_after_idle": 0, "timeout": 1.0}
    async with engine_with_pool(relay.url(postgres_url), **options) as engine:
        await ask(engine)
        relay.blackhole()
        with pytest.raises(DatabaseUnavailableError):
            await ask(engine)
        relay.restore()


# -- outages ------------------------------------------------------------------------------------


async def test_a_restart_of_two_seconds_is_waited_out(
    own_url: str, own_postgres: PostgresServer
) -> None:
    async with engine_with_pool(own_url, size=3, max_overflow=2) as engine:
        await release(await hold(engine, 5))
        await asyncio.to_thread(own_postgres.stop, "immediate")
        tasks = [asyncio.create_task(ask(engine)) for _ in range(20)]
        await asyncio.sleep(2)
        assert not any(task.done() for task in tasks)
        await asyncio.to_thread(own_postgres.start)
        assert await asyncio.gather(*tasks) == [1] * 20
        assert [await ask(engine) for _ in range(20)] == [1] * 20
        await no_slot_is_lost(engine)


async def test_during_an_outage_one_of_fifty_probes(relay: Relay, postgres_url: str) -> None:
    """All others wait for its word: a fleet must not storm a server that comes up."""
    attempts: list[tuple[float, int]] = []

    relay.refuse()
    async with engine_with_pool(
        relay.url(postgres_url), size=5, max_overflow=10, timeout=20
    ) as engine:

        @event.listens_for(engine.sync_engine, "do_connect")
        def count(*_: object) -> None:
            attempts.append((time.monotonic(), pool_of(engine)._slots.opening))

        tasks = [asyncio.create_task(ask(engine)) for _ in range(50)]
        await until(lambda: len(attempts) >= 19)
        assert pool_of(engine).waiting() == 50
        # Fifteen began before anybody knew; from then on there is one at a time.
        assert [opening for _, opening in attempts[15:]] == [1] * len(attempts[15:])
        pauses = [after - before for (before, _), (after, _) in itertools.pairwise(attempts[15:])]
        assert min(pauses) >= 0.02
        relay.restore()
        assert await asyncio.gather(*tasks) == [1] * 50
        await no_slot_is_lost(engine)


async def test_a_wrong_password_is_raised_at_once_and_blocks_nobody(
    postgres_url: str, postgres: RemoteServer
) -> None:
    """One that may rotate is asked for again: tests/test_passwords.py."""
    database = postgres_url.rpartition("/")[2]
    async with engine_with_pool(postgres.url(database, password="hunter2")) as engine:
        started = time.monotonic()
        results = await asyncio.gather(*(ask(engine) for _ in range(20)), return_exceptions=True)
        assert time.monotonic() - started < 5
        for error in results:
            assert isinstance(error, exc.DBAPIError)
            assert "hunter2" not in str(error)
        assert pool_of(engine).outage() is None


async def test_an_error_of_the_operating_system_that_stays_is_named_at_once(
    postgres_url: str,
) -> None:
    async with engine_with_pool(postgres_url) as engine:

        @event.listens_for(engine.sync_engine, "do_connect")
        def forbid(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        with pytest.raises(DatabaseUnavailableError, match=r"Permission denied.*Check the host"):
            await ask(engine)
        assert pool_of(engine).outage() is None


async def test_an_error_of_the_driver_is_one_of_sqlalchemy(postgres_url: str) -> None:
    """SQLAlchemy 2.0 lets asyncpg's own errors at connect through."""
    async with engine_with_pool(postgres_url) as engine:

        @event.listens_for(engine.sync_engine, "do_connect")
        def refuse(*_: object) -> None:
            raise asyncpg.InvalidPasswordError("password authentication failed")

        with pytest.raises(exc.OperationalError, match="authentication failed"):
            await ask(engine)


@pytest.mark.parametrize("moment", ["in a statement", "between two"])
async def test_a_connection_lost_while_it_is_set_up_is_opened_again(
    postgres_url: str, moment: str
) -> None:
    async with engine_with_pool(postgres_url) as engine:
        losses = [moment]

        @event.listens_for(engine.sync_engine, "connect")
        def lose(connection: Any, _record: object) -> None:
            if losses.pop() if losses else None:
                if moment == "in a statement":
                    raise asyncpg.InterfaceError("connection is closed")
                connection.driver_connection.terminate()
                connection.cursor().execute("SELECT 1")

        assert await ask(engine) == 1
        assert activity_of(engine).snapshot().connection_failures == 1


async def test_too_many_clients_is_waited_out(own_url: str, own_postgres: PostgresServer) -> None:
    own_postgres.psql("ALTER DATABASE own CONNECTION LIMIT 2")
    own_postgres.psql("CREATE ROLE papers LOGIN PASSWORD 'papers'")
    try:
        url = own_postgres.url("own", user="papers", password="papers")
        async with engine_with_pool(url, size=5, max_overflow=10) as engine:
            assert await asyncio.gather(*(ask(engine) for _ in range(30))) == [1] * 30
            assert activity_of(engine).snapshot().opened == 2
    finally:
        own_postgres.psql("DROP ROLE papers")


# -- cancellation -------------------------------------------------------------------------------


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_waiter_loses_no_slot(database_url: str) -> None:
    async with engine_with_pool(database_url) as engine:
        held = await hold(engine, 3)
        tasks = await queue_up(engine, 5)
        await cancelled(tasks[2])
        await held.pop().close()
        # In the moment of service: it was handed over, and has not run since.
        assert pool_of(engine).waiting() == 3
        tasks[0].cancel()
        await release(held)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert activity_of(engine).snapshot().canceled >= 1
        await no_slot_is_lost(engine)


async def test_cancelling_at_any_moment_of_a_connect_loses_no_slot(
    relay: Relay, postgres_url: str
) -> None:
    """The opening belongs to the pool: it goes on, and what it opened stays."""
    for moments in range(0, 40, 3):
        async with engine_with_pool(relay.url(postgres_url), size=1, max_overflow=0) as engine:
            task = asyncio.create_task(ask(engine))
            for _ in range(moments):
                await asyncio.sleep(0)
            # Where the machine was slow to run this, the connection is in use by now, and is lost.
            in_time = activity_of(engine).snapshot().opened == 0
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await no_slot_is_lost(engine)
            assert activity_of(engine).snapshot().opened == 1 or not in_time
    await until(lambda: relay.live == 0)


async def test_a_cancelled_ping_closes_its_connection_and_frees_the_slot(
    relay: Relay, postgres_url: str
) -> None:
    options = {"size": 1, "max_overflow": 0, "ping_after_idle": 0}
    async with engine_with_pool(relay.url(postgres_url), **options) as engine:
        await ask(engine)
        relay.at("SELECT 1", "hold")
        task = asyncio.create_task(ask(engine))
        await until(lambda: activity_of(engine).snapshot().pings == 1)
        await cancelled(task)
        assert activity_of(engine).snapshot().closed == {"ping_failed": 1}
        await no_slot_is_lost(engine)


async def test_a_cancelled_prober_leaves_the_probe_to_the_others(
    relay: Relay, postgres_url: str
) -> None:
    relay.refuse()
    async with engine_with_pool(relay.url(postgres_url), size=1, max_overflow=0) as engine:
        tasks = await queue_up(engine, 3)
        await until(lambda: pool_of(engine).outage() is not None)
        await cancelled(tasks[0])
        relay.restore()
        assert await asyncio.gather(*tasks[1:]) == [1, 1]
        await no_slot_is_lost(engine)


async def test_a_cancelled_statement_costs_its_connection_and_no_slot(postgres_url: str) -> None:
    async with engine_with_pool(postgres_url, size=1, max_overflow=0) as engine:

        async def sleep() -> None:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT pg_sleep(60)"))

        await ask(engine)
        task = asyncio.create_task(sleep())
        await until(lambda: pool_of(engine).checkedout())
        await asyncio.sleep(0.05)
        await cancelled(task)
        assert await asyncio.wait_for(ask(engine), 5) == 1
        await no_slot_is_lost(engine)


async def test_a_loop_that_ends_while_connecting_leaves_nothing_open(
    relay: Relay, postgres_url: str
) -> None:
    def run() -> ElasticPool:
        async def main() -> ElasticPool:
            engine = make_engine(relay.url(postgres_url))
            task = asyncio.create_task(ask(engine))
            await until(lambda: relay.live == 1)
            task.cancel()
            return pool_of(engine)

        return asyncio.run(main())

    relay.at("select pg_catalog.version()", "hold")
    pool = await asyncio.to_thread(run)
    assert pool.total() == 0
    await until(lambda: relay.live == 0)


# -- return, invalidation -----------------------------------------------------------------------


async def test_the_gauges_are_true_at_each_moment(database_url: str) -> None:
    async with engine_with_pool(database_url, size=2, max_overflow=2, timeout=5) as engine:
        assert gauges(engine) == (0, 0, 0, 0, 0)
        assert pool_of(engine).full_since is None
        one = await engine.connect()
        assert gauges(engine) == (0, 1, 0, 1, 0)
        others = await hold(engine, 3)
        assert gauges(engine) == (0, 4, 2, 4, 0)
        assert pool_of(engine).full_since is not None
        tasks = await queue_up(engine, 2)
        assert gauges(engine) == (0, 4, 2, 4, 2)
        await cancelled(tasks[0])
        assert gauges(engine) == (0, 4, 2, 4, 1)
        await others.pop().close()
        await tasks[1]
        assert gauges(engine) == (1, 3, 2, 4, 0)
        assert pool_of(engine).full_since is None
        await one.invalidate()
        await one.close()
        await until(lambda: gauges(engine) == (1, 2, 1, 3, 0))
        assert pool_of(engine).invalidated() == 1
        pool = pool_of(engine)
        await engine.dispose()
        assert (pool.checkedin(), pool.checkedout(), pool.total()) == (0, 2, 2)
        assert gauges(engine) == (0, 0, 0, 0, 0)
        await release(others)
        await until(lambda: (pool.checkedout(), pool.total()) == (0, 0))
        assert len(activity_of(engine).holders()) == 0
        assert "Pool size: 2" in pool_of(engine).status()


async def test_a_connection_reconnected_after_its_invalidation_is_kept(database_url: str) -> None:
    """SQLAlchemy reconnects the record of an invalidated connection that is used again."""
    async with engine_with_pool(database_url, size=1, max_overflow=0) as engine:
        async with engine.connect() as connection:
            first = (await connection.get_raw_connection()).driver_connection
            await connection.invalidate()
            await connection.rollback()
            await connection.execute(text("SELECT 1"))
            second = (await connection.get_raw_connection()).driver_connection
        async with engine.connect() as connection:
            assert (await connection.get_raw_connection()).driver_connection is second is not first
        await no_slot_is_lost(engine)


async def test_a_softly_invalidated_connection_is_replaced_at_its_return(
    relay: Relay, postgres_url: str
) -> None:
    """Not after the next checkout, where its reconnect would be outside of the deadline."""
    options = {"size": 1, "max_overflow": 0, "timeout": 0.3}
    async with engine_with_pool(relay.url(postgres_url), **options) as engine:
        async with engine.connect() as connection:
            first = await backend_pid(connection)
            raw = await connection.get_raw_connection()
            raw.invalidate(soft=True)
        await until(lambda: pool_of(engine).total() == 0)
        relay.refuse()
        with pytest.raises(DatabaseUnavailableError):
            await ask(engine)
        relay.restore()
        pool_of(engine)._timeout = 10
        async with engine.connect() as connection:
            assert await backend_pid(connection) != first
        # Also in the pool that follows, which gets the listeners of this one.
        await engine.dispose()
        async with engine.connect() as connection:
            (await connection.get_raw_connection()).invalidate(soft=True)
        await until(lambda: pool_of(engine).total() == 0)


async def test_a_connection_that_sqlalchemy_replaces_by_itself_is_taken_as_it_is(
    postgres_url: str,
) -> None:
    """`pool_pre_ping` of others and `Pool._invalidate` make it reconnect within its record."""
    async with engine_with_pool(postgres_url, size=1, max_overflow=0) as engine:
        async with engine.connect() as connection:
            first = await backend_pid(connection)
        pool_of(engine)._invalidate_time = time.time() + 0.001
        await asyncio.sleep(0.01)
        async with engine.connect() as connection:
            second = await backend_pid(connection)
            assert second != first
        async with engine.connect() as connection:
            assert await backend_pid(connection) == second
        await no_slot_is_lost(engine)


async def test_a_connection_beside_the_pool_is_no_concern_of_the_pool(postgres_url: str) -> None:
    async with engine_with_pool(postgres_url, size=1, max_overflow=0) as engine:
        pool = pool_of(engine)
        record = await open_record(pool, pool._backend, 5)
        record.invalidate(soft=True)
        assert gauges(engine) == (0, 0, 0, 0, 0)
        await greenlet_spawn(record.close)


async def test_a_detached_connection_frees_its_slot(postgres_url: str) -> None:
    async with engine_with_pool(postgres_url, size=1, max_overflow=0) as engine:
        connection = await engine.connect()
        raw = await connection.get_raw_connection()
        raw.detach()
        assert gauges(engine) == (0, 0, 0, 0, 0)
        assert await ask(engine) == 1
        await connection.close()
        await no_slot_is_lost(engine)


async def test_a_connection_that_comes_back_in_a_transaction_is_refused(postgres_url: str) -> None:
    async with engine_with_pool(postgres_url, size=1, max_overflow=0) as engine:
        connection = await engine.connect()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute("BEGIN")
        await connection.close()
        assert activity_of(engine).snapshot().closed == {"unclean": 1}
        async with engine.connect() as connection:
            assert (await connection.get_raw_connection()).driver_connection is not driver
        await no_slot_is_lost(engine)


async def test_a_connection_that_comes_back_in_the_middle_of_a_statement_is_refused(
    postgres_url: str,
) -> None:
    async with engine_with_pool(postgres_url, size=1, max_overflow=0) as engine:
        connection = await engine.connect()
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        pooled = next(iter(pool_of(engine)._leased.values()))
        query = asyncio.create_task(connection.execute(text("SELECT pg_sleep(30)")))
        await until(lambda: pooled.busy)
        await connection.close()
        assert activity_of(engine).snapshot().closed == {"unclean": 1}
        with pytest.raises(exc.DBAPIError):
            await query
        await no_slot_is_lost(engine)


@pytest.mark.parametrize("ping_after_idle", [60.0, 0.0], ids=["trusted", "pinged"])
async def test_a_connection_that_was_used_after_its_return_is_not_handed_out(
    postgres_url: str, ping_after_idle: float
) -> None:
    async with engine_with_pool(
        postgres_url, size=1, max_overflow=0, ping_after_idle=ping_after_idle
    ) as engine:
        connection = await engine.connect()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await connection.close()
        await driver.execute("BEGIN")
        async with engine.connect() as connection:
            assert (await connection.get_raw_connection()).driver_connection is not driver
        assert activity_of(engine).snapshot().closed == {"unclean": 1}
        await no_slot_is_lost(engine)


async def test_reset_on_return_may_commit(postgres_url: str) -> None:
    async with engine_with_pool(postgres_url, reset_on_return="commit") as engine:
        connection = await engine.connect()
        raw = await connection.get_raw_connection()
        cursor = raw.cursor()
        await greenlet_spawn(cursor.execute, "CREATE TABLE kept (id int)")
        await greenlet_spawn(raw.close)
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM kept"))).scalar() == 0
        assert pool_of(engine).recreate()._reset_on_return is pool_of(engine)._reset_on_return


async def test_a_return_from_another_thread_is_carried_to_the_loop(database_url: str) -> None:
    """The garbage collector runs in any thread."""
    async with engine_with_pool(database_url, size=1, max_overflow=0) as engine:
        connection = await engine.connect()
        record: Any = (await connection.get_raw_connection())._connection_record
        waiting = await queue_up(engine)
        threading.Thread(target=pool_of(engine)._do_return_conn, args=[record]).start()
        assert await asyncio.wait_for(waiting[0], 5) == 1
        assert gauges(engine) == (1, 0, 0, 1, 0)
        pool_of(engine)._do_return_conn(record)  # a second return is no second connection
        await connection.close()
        assert gauges(engine) == (1, 0, 0, 1, 0)


async def test_a_forgotten_connection_is_returned_by_the_garbage_collector(
    postgres_url: str,
) -> None:
    async with engine_with_pool(postgres_url, size=1, max_overflow=0) as engine:

        async def forget() -> None:
            await engine.connect()

        with warnings.catch_warnings(action="ignore"):
            gc.collect()  # what other tests left has warnings of its own
        task = asyncio.create_task(forget())
        with pytest.warns(exc.SAWarning, match="garbage collector"):
            await collected(task)
        assert await asyncio.wait_for(ask(engine), 5) == 1
        assert activity_of(engine).holders() == ()
        await no_slot_is_lost(engine)


# -- the whole pool -----------------------------------------------------------------------------


async def test_retiring_replaces_what_is_idle_at_once_and_the_rest_at_its_return(
    postgres_url: str,
) -> None:
    async with engine_with_pool(postgres_url, size=3, max_overflow=0) as engine:
        pool = pool_of(engine)
        *idle, used = await hold(engine, 3)
        await release(idle)
        pool.retire("the server is another one now")
        assert pool.checkedin() == 0
        await until(lambda: pool.total() == 1)
        await release([used])
        await until(lambda: pool.total() == 0)
        assert await ask(engine) == 1
        # Where each server refuses, once a second is enough.
        pool.retire("again")
        assert pool.checkedin() == 1


async def test_retiring_replaces_what_is_being_opened(postgres_url: str) -> None:
    """It may come from the server that is no longer the right one."""
    async with engine_with_pool(postgres_url, size=2, max_overflow=0) as engine:
        event.listen(
            engine.sync_engine, "connect", lambda *_: pool_of(engine).retire("why"), once=True
        )
        assert await ask(engine) == 1
        assert activity_of(engine).snapshot().opened == 2
        await no_slot_is_lost(engine)


async def test_dispose_closes_what_is_idle_and_later_what_comes_back(
    postgres_url: str, postgres: RemoteServer
) -> None:
    database = postgres_url.rpartition("/")[2]
    engine = make_engine(postgres_url)
    held = await hold(engine, 2)
    await ask(engine)
    old = pool_of(engine)
    await engine.dispose()
    assert pool_of(engine) is not old
    assert len(postgres.sessions(database)) == 2
    await release(held)
    await until(lambda: not postgres.sessions(database))
    assert activity_of(engine).snapshot().closed == {"disposed": 3}
    assert await ask(engine) == 1
    await engine.dispose()
    assert not postgres.sessions(database)


async def test_dispose_of_a_pool_that_was_never_used_is_nothing(sqlite_url: str) -> None:
    await make_engine(sqlite_url).dispose()


async def test_those_who_wait_in_a_disposed_pool_are_served(database_url: str) -> None:
    engine = make_engine(database_url, size=1, max_overflow=0)
    connection = await engine.connect()
    waiting = await queue_up(engine, 3)
    old = pool_of(engine)
    await engine.dispose()
    await connection.close()
    assert await asyncio.gather(*waiting) == [1] * 3
    await until(lambda: old.total() == 0)


async def test_what_was_opened_for_nobody_is_closed_in_a_disposed_pool(
    relay: Relay, postgres_url: str
) -> None:
    engine = make_engine(relay.url(postgres_url))
    task = asyncio.create_task(ask(engine))
    await until(lambda: relay.live == 1)
    await cancelled(task)
    await engine.dispose()
    await until(lambda: relay.live == 0)
    assert activity_of(engine).snapshot().closed == {"disposed": 1}


async def test_what_comes_back_to_a_cancelled_waiter_is_closed_in_a_disposed_pool(
    postgres_url: str,
) -> None:
    """In the moment of service: it was handed over, and has not run since."""
    engine = make_engine(postgres_url, size=1, max_overflow=0)
    (held,) = await hold(engine, 1)
    pool = pool_of(engine)
    (waiter,) = await queue_up(engine, 1)
    await engine.dispose()
    await held.close()
    await cancelled(waiter)
    await until(lambda: pool.total() == 0)
    assert pool.checkedin() == 0


async def test_a_connection_that_a_cancelled_waiter_left_retires_too(database_url: str) -> None:
    async with engine_with_pool(database_url, size=1, max_overflow=1, idle_timeout=0.05) as engine:
        held = await hold(engine, 2)
        tasks = await queue_up(engine, 2)
        for connection, task in zip(held, tasks, strict=True):
            await connection.close()
            await cancelled(task)
        await until(lambda: pool_of(engine).checkedin() == 1)


async def test_a_connect_that_is_cancelled_from_inside_is_tried_again_after_a_pause(
    database_url: str,
) -> None:
    attempts: list[float] = []
    async with engine_with_pool(database_url, size=1, max_overflow=0, timeout=0.4) as engine:

        @event.listens_for(engine.sync_engine, "do_connect")
        def cancel(*_: object) -> None:
            attempts.append(time.monotonic())
            raise asyncio.CancelledError

        with pytest.raises(DatabaseUnavailableError, match="the connect ended in CancelledError"):
            await ask(engine)
        assert 1 < len(attempts) < 10
        assert pool_of(engine).total() == 0


async def test_a_connect_that_ends_in_what_is_no_error_is_tried_again(database_url: str) -> None:
    """What a listener raises there goes on, to the loop's own handler."""

    class Leave(BaseException):
        pass

    leaving: list[BaseException] = [Leave()]
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with engine_with_pool(database_url, size=1, max_overflow=0) as engine:

        @event.listens_for(engine.sync_engine, "do_connect")
        def leave(*_: object) -> None:
            if leaving:
                raise leaving.pop()

        assert await ask(engine) == 1
        await no_slot_is_lost(engine)
    gc.collect()
    assert [type(each["exception"]) for each in told] == [Leave]


async def test_dispose_against_a_silent_server_ends_within_its_bound(
    relay: Relay, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reviewpoint_db.supply.CLOSE_TIMEOUT", 0.3)
    engine = make_engine(relay.url(postgres_url), size=5, timeout=0.1)
    held = await hold(engine, 3)
    await release(held[1:])
    relay.blackhole()
    pool = pool_of(engine)
    pool._slots._open()
    started = time.monotonic()
    await engine.dispose()
    assert time.monotonic() - started < 3
    assert not pool._supply.openings
    pool.terminate()
    assert all(pooled.driver.is_closed() for pooled in pool._leased.values())
    relay.restore()
    await held[0].close()
    await until(lambda: relay.live == 0)


async def test_dispose_in_another_thread_is_carried_to_the_loop(postgres_url: str) -> None:
    engine = make_engine(postgres_url)
    await ask(engine)
    pool = pool_of(engine)
    await asyncio.to_thread(engine.sync_engine.dispose)
    await until(lambda: pool.total() == 0)


async def test_what_was_under_way_in_an_abandoned_pool_ends_without_a_slot(
    relay: Relay, postgres_url: str
) -> None:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    engine = make_engine(relay.url(postgres_url))
    await release(await hold(engine, 2))
    pool = pool_of(engine)
    relay.delay(0.2)
    pool._supply.close_idle()
    pool._slots._open()
    await asyncio.sleep(0)
    under_way = {*pool._supply.openings, *pool._supply.closings}
    assert len(under_way) == 3
    pool.abandon()
    await asyncio.wait(under_way, timeout=10)
    await asyncio.sleep(0)
    assert (pool.total(), pool._slots.opening, pool.checkedin()) == (0, 0, 0)
    assert not pool._supply.openings
    assert errors == []
    await until(lambda: relay.live == 0)
    assert await ask(engine) == 1
    await engine.dispose()


async def test_an_overload_is_no_silent_database_because_a_connection_is_being_opened(
    relay: Relay, postgres_url: str
) -> None:
    async with engine_with_pool(
        relay.url(postgres_url), size=1, max_overflow=1, queue_target=0.01
    ) as engine:
        held = await hold(engine, 1)
        standing = pool_of(engine)._slots._standing
        assert standing is not None
        standing.stands = True
        relay.blackhole()
        with pytest.raises(PoolTimeoutError, match="queue_target"):
            await ask(engine)
        relay.restore()
        await release(held)


def test_a_close_under_way_in_a_loop_that_is_closed_is_cut(relay: Relay, postgres_url: str) -> None:
    async def use() -> AsyncEngine:
        engine = make_engine(relay.url(postgres_url))
        await ask(engine)
        relay.blackhole()
        pool_of(engine)._supply.close_idle()
        await asyncio.sleep(0)
        return engine

    loop = asyncio.new_event_loop()
    engine = loop.run_until_complete(use())
    loop.close()
    relay.restore()
    engine.sync_engine.dispose()
    assert pool_of(engine).total() == 0
    deadline = time.monotonic() + 5
    while relay.live:
        assert time.monotonic() < deadline


def test_a_pool_whose_loop_is_closed_is_cut_by_dispose_and_by_late_returns(
    postgres_url: str, postgres: RemoteServer
) -> None:
    async def use() -> tuple[AsyncEngine, list[AsyncConnection], list[Any]]:
        engine = make_engine(postgres_url)
        held = await hold(engine, 3)
        await held.pop().close()
        return engine, held, [(await one.get_raw_connection())._connection_record for one in held]

    loop = asyncio.new_event_loop()
    engine, held, records = loop.run_until_complete(use())
    loop.close()
    pool, activity = pool_of(engine), activity_of(engine)
    pool._do_return_conn(records[1])
    pool._do_return_conn(records[1])  # a second return is nothing
    assert pool.checkedout() == 1
    engine.sync_engine.dispose()
    assert gauges(engine) == (0, 0, 0, 0, 0)
    assert (pool.total(), pool.checkedout(), pool.checkedin()) == (0, 0, 0)
    assert activity.holders() == ()
    assert activity.snapshot().closed == {"disposed": 3}
    database = postgres_url.rpartition("/")[2]
    deadline = time.monotonic() + 5
    while postgres.sessions(database):
        assert time.monotonic() < deadline
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exc.SAWarning)
        del held, records
        gc.collect()


async def test_recreate_keeps_every_setting(postgres_url: str) -> None:
    engine = make_engine(
        postgres_url,
        size=3,
        max_overflow=4,
        timeout=5,
        idle_timeout=6,
        max_lifetime=7,
        ping_after_idle=8,
        reset_on_return="commit",
        connect_timeout=9,
        engine_options={"pool_logging_name": "papers", "echo_pool": "debug"},
    )
    seen: list[str] = []
    event.listen(engine.sync_engine, "checkout", lambda *_: seen.append("checkout"))
    pool = pool_of(engine)
    other = pool.recreate()
    kept = (
        "_creator",
        "_max_overflow",
        "_timeout",
        "_ping_after_idle",
        "_backend",
        "activity",
        "_pre_ping",
        "_orig_logging_name",
        "_reset_on_return",
        "_dialect",
        "echo",
    )
    assert {name: getattr(other, name) for name in kept} == {
        name: getattr(pool, name) for name in kept
    }
    assert (other.size(), other._slots.limit) == (3, 7)
    for name in ("lifetime", "idle_timeout", "connect_timeout", "_size"):
        assert getattr(other._supply, name) == getattr(pool._supply, name)
    await engine.dispose()
    await ask(engine)
    assert seen == ["checkout"]
    assert activity_of(engine).snapshot().acquired == 1
    await engine.dispose()


async def test_an_overflow_without_limit(sqlite_url: str) -> None:
    pool = make_engine(sqlite_url).sync_engine.pool
    assert isinstance(pool, ElasticPool)
    pool._max_overflow = -1
    unlimited = pool.recreate()
    connections = [await greenlet_spawn(unlimited.connect) for _ in range(20)]
    assert (unlimited.checkedout(), unlimited.full_since) == (20, None)
    for connection in connections:
        await greenlet_spawn(connection.close)
    await greenlet_spawn(unlimited.dispose)


@pytest.mark.parametrize("poolclass", [NullPool, AsyncAdaptedQueuePool, StaticPool])
async def test_an_application_may_bring_another_pool(
    database_url: str, poolclass: type[Pool]
) -> None:
    config = DatabaseConfig(url=database_url, engine_options={"poolclass": poolclass})
    engine = create_engine(config, Activity("test"))
    assert elastic_pool(engine) is None
    assert await ask(engine) == 1
    await engine.dispose()


async def test_a_listener_that_fails_at_the_end_of_a_connection_costs_no_slot(
    sqlite_url: str,
) -> None:
    async with engine_with_pool(sqlite_url, size=1, max_overflow=0) as engine:

        def fail(*_: object) -> None:
            raise ValueError("a listener's own")

        await ask(engine)
        event.listen(engine.sync_engine, "close", fail)
        pool_of(engine)._slots.idle[0].retire_at = 0
        assert await asyncio.wait_for(ask(engine), 5) == 1
        event.remove(engine.sync_engine, "close", fail)
        await no_slot_is_lost(engine)


@pytest.mark.parametrize("failure", [ValueError("a listener's own"), asyncio.CancelledError()])
async def test_a_listener_that_fails_at_connect_strands_nothing(
    relay: Relay, postgres_url: str, failure: BaseException
) -> None:
    async with engine_with_pool(
        relay.url(postgres_url), size=1, max_overflow=0, timeout=5
    ) as engine:
        failures = [failure]

        @event.listens_for(engine.sync_engine, "connect")
        def fail(*_: object) -> None:
            if failures:
                raise failures.pop()

        if isinstance(failure, ValueError):
            with pytest.raises(ValueError, match="a listener's own"):
                await ask(engine)
        assert await ask(engine) == 1
        await until(lambda: relay.live == 1)
        await no_slot_is_lost(engine)


def test_the_private_names_of_sqlalchemy_are_as_they_were() -> None:
    """What the pool overrides, calls or copies; a change of theirs needs a look at ours."""
    pool = AsyncAdaptedQueuePool(lambda: None)  # type: ignore[arg-type]
    for name in (
        "_creator",
        "_pre_ping",
        "_orig_logging_name",
        "_dialect",
        "_invoke_creator",
        "_reset_on_return",
        "_max_overflow",
        "_timeout",
    ):
        assert hasattr(pool, name)
    signatures: dict[Callable[..., Any], list[str]] = {
        Pool._do_get: ["self"],
        Pool._do_return_conn: ["self", "record"],
        Pool._create_connection: ["self"],
    }
    for method, parameters in signatures.items():
        assert list(inspect.signature(method).parameters) == parameters
    assert "_execute_mutex" in AsyncAdapt_dbapi_connection.__slots__
    assert "_dispatch" in inspect.signature(Pool.__init__).parameters
    source = inspect.getsource(AsyncAdaptedQueuePool.recreate)
    copied = {line.split("=")[0].strip() for line in source.splitlines() if "=self." in line}
    ours = inspect.getsource(ElasticPool.recreate)
    missing = {name for name in copied if f"{name}=" not in ours}
    assert missing == {"use_lifo"}  # ours always is
