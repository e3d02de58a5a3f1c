"""Whatever happens to a pool, in whatever order, it keeps its promises.

Hypothesis drives checkouts, returns, cancellations, timeouts, invalidations, kills, outages and
disposals, and after each step looks at the invariants: never more than size + max_overflow open, no
slot lost, first come first served, gauges true.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.util import await_only, greenlet_spawn

from reviewpoint_db import slots as slots_module
from reviewpoint_db.activity import Activity
from reviewpoint_db.errors import UnavailableError
from reviewpoint_db.pool import ElasticPool
from tests.support.pools import make_engine, pool_of
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from sqlalchemy.pool import PoolProxiedConnection

    from tests.support.postgres import RemoteServer


class Clock:
    """The time of the loop that runs, which passes only while nothing is to do."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def new_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(_Leaping(self))
        loop.time = self.monotonic  # type: ignore[method-assign]
        return loop


class _Leaping(selectors.SelectSelector):
    """Leaps to the next timer; waiting with no timer set would be waiting for ever."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._turns = 0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits, and nobody will ever wake them"
        self._turns = 0 if timeout > 0 else self._turns + 1
        assert self._turns < 5000, "the loop turns and turns, and nothing is waited for"
        self._clock.now += max(0.0, timeout)
        return []


clock = Clock()


class Server:
    """Stands in for the database: counts what is open, and fails when told to."""

    def __init__(self) -> None:
        self.open: dict[Driver, None] = {}  # in order, so that a run can be repeated
        self.most = 0
        self.down = False
        self.silent = False

    async def connect(self) -> Driver:
        await asyncio.sleep(0)
        while self.silent:
            await asyncio.sleep(0.001)
        if self.down:
            raise ConnectionRefusedError("down")
        driver = Driver(self)
        self.open[driver] = None
        self.most = max(self.most, len(self.open))
        return driver


class Driver:
    """A connection to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.in_transaction = False

    # What SQLAlchemy asks of a DBAPI's connection, and of its own adapter of one.

    @property
    def driver_connection(self) -> Driver:
        return self

    def rollback(self) -> None:
        """Nothing to send."""

    def close(self) -> None:
        self.server.open.pop(self, None)


class FakeBackend:
    """The driver's answers."""

    needs_ping = True
    password_rotates = False

    def is_closed(self, driver: Driver) -> bool:
        return driver not in driver.server.open

    def lost_file(self, driver: Driver) -> None:
        """It has no file."""

    def in_transaction(self, driver: Driver) -> bool:
        return driver.in_transaction

    def __init__(self) -> None:
        self.pinging: set[asyncio.Task[Any] | None] = set()

    def pid(self, driver: Driver) -> None:
        """It has no process."""

    async def ping(self, driver: Driver, timeout: float) -> None:
        self.pinging.add(asyncio.current_task())
        await asyncio.sleep(0)
        if self.is_closed(driver):
            raise ConnectionResetError("gone")
        if driver.server.silent:
            await asyncio.wait_for(asyncio.Event().wait(), timeout)

    async def close(self, driver: Driver, timeout: float) -> None:
        await asyncio.sleep(0)
        driver.close()

    def terminate(self, driver: Driver) -> None:
        driver.close()


class Clients:
    """Those who use a pool: each asks, waits, holds, and gives back; in an event loop of its own."""

    def __init__(self, pool: ElasticPool) -> None:
        self.pool = pool
        self.asking: dict[int, asyncio.Task[None]] = {}
        self.held: dict[int, PoolProxiedConnection] = {}
        self.cancelled: set[int] = set()
        self.served: list[int] = []
        self._arrivals = 0

    async def ask(self) -> None:
        self._arrivals += 1
        number = self._arrivals

        async def client() -> None:
            try:
                connection = await greenlet_spawn(self.pool.connect)
            except UnavailableError:
                return  # an answer, too
            finally:
                del self.asking[number]
            # One that had its turn may still ping while the next has its own.
            backend: Any = self.pool._backend
            if asyncio.current_task() not in getattr(backend, "pinging", ()):
                self.served.append(number)
            self.held[number] = connection

        self.asking[number] = asyncio.create_task(client())
        await asyncio.sleep(0)

    async def give_back(self, connection: PoolProxiedConnection) -> None:
        await greenlet_spawn(connection.close)


SIZE, OVERFLOW = 2, 2


class PoolMachine(RuleBasedStateMachine):
    """Runs an event loop a step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = self.make_loop()
        self.errors: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.server = Server()
        self.activity = Activity("machine")
        self.old: list[ElasticPool] = []

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 30))

    @initialize()
    def begin(self) -> None:
        self.clients = Clients(self.make_pool())

    def make_loop(self) -> asyncio.AbstractEventLoop:
        clock.now = 0.0
        return clock.new_loop()

    def make_pool(self) -> ElasticPool:
        backend: Any = FakeBackend()
        pool = ElasticPool(
            lambda: await_only(self.server.connect()),
            pool_size=SIZE,
            max_overflow=OVERFLOW,
            timeout=0.03,
            connect_timeout=0.01,
            idle_timeout=0.004,
            ping_after_idle=0.001,
            recycle=0.05,
            backend=backend,
            activity=self.activity,
        )
        pool._dialect.get_driver_connection = lambda connection: connection  # type: ignore[method-assign]
        return pool

    @property
    def pool(self) -> ElasticPool:
        return self.clients.pool

    # -- what may happen ------------------------------------------------------------------------

    @rule(number=st.integers(1, 6))
    def ask(self, number: int) -> None:
        for _ in range(number):
            self.run(self.clients.ask())

    @rule(turns=st.integers(1, 30))
    def let_the_loop_turn(self, turns: int) -> None:
        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.run(turn())

    @rule(milliseconds=st.integers(1, 12))
    def let_time_pass(self, milliseconds: int) -> None:
        self.run(asyncio.sleep(milliseconds / 1000))

    @precondition(lambda self: self.clients.held)
    @rule(data=st.data(), clean=st.booleans())
    def give_back(self, data: st.DataObject, clean: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.clients.held)))
        connection = self.clients.held.pop(number)
        if not clean:
            self.leave_a_transaction_open(connection)
        self.run(self.clients.give_back(connection))

    def leave_a_transaction_open(self, connection: PoolProxiedConnection) -> None:
        driver: Any = connection.driver_connection
        driver.in_transaction = True

    @precondition(lambda self: self.clients.held)
    @rule(data=st.data(), soft=st.booleans())
    def invalidate(self, data: st.DataObject, soft: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.clients.held)))
        connection = self.clients.held.pop(number)

        async def invalidate() -> None:
            await greenlet_spawn(connection.invalidate, None, soft)
            await self.clients.give_back(connection)

        self.run(invalidate())

    @precondition(lambda self: self.clients.asking)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.clients.asking)))
        self.clients.asking[number].cancel()

    @rule()
    def lose_one(self) -> None:
        if self.server.open:
            self.server.open.popitem()
            self.pool.suspect()

    @rule()
    def restart(self) -> None:
        self.server.open.clear()

    @rule(down=st.booleans(), silent=st.booleans())
    def change_the_server(self, down: bool, silent: bool) -> None:
        self.server.down, self.server.silent = down, silent

    @rule()
    def dispose(self) -> None:
        async def dispose() -> None:
            self.server.silent = False
            await greenlet_spawn(self.pool.dispose)

        self.run(dispose())
        self.old.append(self.pool)
        waiting = self.clients.asking
        held, served = self.clients.held, self.clients.served
        # Those who still wait or hold do so in the old pool, which ends with them.
        self.finish(waiting, held)
        assert served == sorted(served)
        assert self.pool.total() == 0
        self.server.most = 0
        self.clients = Clients(self.pool.recreate())

    def finish(self, waiting: dict[int, Any], held: dict[int, PoolProxiedConnection]) -> None:
        """All who wait are served or told, all who hold give back, and nothing is left open."""

        async def finish() -> None:
            self.server.down = self.server.silent = False
            while waiting or held or self.pool._supply.closings or self.pool._supply.openings:
                while held:
                    await self.clients.give_back(held.popitem()[1])
                await asyncio.sleep(0.001)

        self.run(finish())

    # -- what always holds ------------------------------------------------------------------------

    @invariant()
    def it_keeps_its_promises(self) -> None:
        if not hasattr(self, "clients"):
            return
        pool, slots = self.pool, self.pool._slots
        assert self.server.most <= SIZE + OVERFLOW
        assert pool.total() <= SIZE + OVERFLOW
        # Every slot is idle, in use, opening, closing, or with one who asks: handed over, or being pinged.
        accounted = (
            pool.checkedin() + pool.checkedout() + slots.opening + len(pool._supply.closings)
        )
        assert accounted <= pool.total() <= accounted + len(self.clients.asking)
        assert pool.checkedout() == len(self.clients.held)
        assert len(self.activity.holders()) == len(self.clients.held)
        assert pool.waiting() <= len(self.clients.asking)
        assert pool.overflow() == max(0, pool.total() - SIZE)
        if pool.waiting():
            assert not slots.idle
            # Whoever waits is waited for by something: a holder, an opening, a closing, a probe.
            assert (
                pool.checkedout()
                or slots.opening
                or pool._supply.closings
                or slots._probe is not None
                or pool.total() > pool.checkedin()
            )
        assert self.clients.served == sorted(self.clients.served)
        assert self.errors == []

    def teardown(self) -> None:
        if hasattr(self, "clients"):
            self.finish(self.clients.asking, self.clients.held)

            async def all_slots_work() -> None:
                for _ in range(SIZE + OVERFLOW):
                    await self.clients.ask()
                while self.clients.asking:
                    await asyncio.sleep(0.001)
                assert len(self.clients.held) == SIZE + OVERFLOW
                await greenlet_spawn(self.pool.dispose)

            self.run(all_slots_work())
            self.finish(self.clients.asking, self.clients.held)
            assert (self.pool.total(), self.server.open) == (0, {})
            assert self.activity.holders() == ()
        self.loop.close()


class RealPoolMachine(PoolMachine):
    """The same with PostgreSQL behind a relay, in real time."""

    relay: ClassVar[Relay]
    url: ClassVar[str]

    def make_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def make_pool(self) -> ElasticPool:
        engine = make_engine(
            self.relay.url(self.url),
            size=SIZE,
            max_overflow=OVERFLOW,
            timeout=5,
            connect_timeout=2,
            idle_timeout=0.02,
            activity=self.activity,
        )
        return pool_of(engine)

    def leave_a_transaction_open(self, connection: PoolProxiedConnection) -> None:
        driver: Any = connection.driver_connection
        if not driver.is_closed():
            self.run(asyncio.wait_for(quietly(driver.execute("BEGIN")), 1))

    @rule()
    def lose_one(self) -> None:
        self.relay.drop(reset=True)
        self.pool.suspect()

    @rule()
    def restart(self) -> None:
        self.relay.drop()

    @rule(down=st.booleans(), silent=st.just(value=False))
    def change_the_server(self, down: bool, silent: bool) -> None:
        if down:
            self.relay.refuse()
        else:
            self.relay.restore()

    def finish(self, waiting: dict[int, Any], held: dict[int, PoolProxiedConnection]) -> None:
        self.relay.restore()
        super().finish(waiting, held)


async def quietly(awaitable: Awaitable[Any]) -> None:
    """A connection that was cut under a statement is what this is about."""
    with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await awaitable


@pytest.mark.usefixtures("_leaping_clock")
def test_the_pool_keeps_its_promises_with_a_driver_that_fails_on_purpose() -> None:
    run_state_machine_as_test(
        PoolMachine,
        settings=settings(
            max_examples=300,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_pool_keeps_its_promises_with_a_real_server(
    postgres_url: str, postgres: RemoteServer
) -> None:
    with Relay.to(postgres_url) as relay:
        machine = type("Machine", (RealPoolMachine,), {"relay": relay, "url": postgres_url})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=6,
                stateful_step_count=25,
                deadline=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert postgres.sessions(postgres_url.rpartition("/")[2]) == []


@pytest.fixture
def _leaping_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "_FIRST_PAUSE", 0.0005)
    monkeypatch.setattr(slots_module, "_LONGEST_PAUSE", 0.002)
    for module in ("pool", "pooled", "slots", "supply", "activity"):
        monkeypatch.setattr(f"reviewpoint_db.{module}.time", clock)
