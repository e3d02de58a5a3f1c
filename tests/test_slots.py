"""The fair queue: arrival decides, nothing is lost, and an outage has one prober."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING

import pytest

from reviewpoint_db import slots as slots_module
from reviewpoint_db.slots import DeadlinePassed, Slots
from reviewpoint_db.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Bench:
    """Slots for connections named by numbers, opened when the test says so."""

    def __init__(self, limit: float, queue_target: float = 0.0) -> None:
        self.slots: Slots[int] = Slots(limit, self._begin, queue_target, kept=self._keep)
        self.begun = 0
        self.kept = 0
        self.served: list[str] = []
        self._arrivals = 0
        self._made = 0

    def _begin(self) -> None:
        self.begun += 1

    def _keep(self) -> None:
        self.kept += 1

    def full(self) -> bool:
        return self.slots.full_since is not None

    def down(self) -> bool:
        return self.slots.outage is not None

    def open(self) -> bool:
        """Whether what was opened is kept, since nobody waits for it."""
        self._made += 1
        before = self.kept
        self.slots.opened(self._made)
        return self.kept > before

    def offer(self, connection: int) -> bool:
        """Whether what comes back is kept."""
        before = self.kept
        self.slots.offer(connection)
        return self.kept > before

    async def arrive(self, name: str = "", *, timeout: float = 60.0) -> asyncio.Task[int]:
        """One who waits, and waits already when this returns."""
        self._arrivals += 1
        task = asyncio.create_task(self._queue(self._arrivals, name, timeout))
        await asyncio.sleep(0)
        return task

    async def _queue(self, ticket: int, name: str, timeout: float) -> int:
        deadline = asyncio.get_running_loop().time() + timeout
        connection = await self.slots.wait(ticket, deadline)
        self.served.append(name)
        return connection


async def soon(awaitable: Awaitable[int]) -> int:
    return await asyncio.wait_for(awaitable, 5)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage's pauses are nearly none."""
    monkeypatch.setattr(slots_module, "_FIRST_PAUSE", 0.0001)
    monkeypatch.setattr(slots_module, "_LONGEST_PAUSE", 0.001)


async def full(limit: int) -> Bench:
    """A bench whose connections are all in use."""
    bench = Bench(limit)
    tasks = [await bench.arrive() for _ in range(limit)]
    for _ in tasks:
        bench.open()
    await asyncio.gather(*tasks)
    bench.served.clear()
    return bench


async def test_the_first_to_arrive_is_the_first_served() -> None:
    bench = await full(1)
    tasks = [await bench.arrive(name) for name in "abcde"]
    for _ in tasks:
        bench.slots.offer(1)
        await asyncio.sleep(0)
    assert await asyncio.gather(*tasks) == [1] * 5
    assert bench.served == list("abcde")


async def test_nobody_overtakes_those_who_wait() -> None:
    bench = await full(1)
    waiting = await bench.arrive()
    bench.slots.offer(1)
    # It is handed over already, though the one who waits has not run since.
    assert bench.slots.take() is None
    assert await soon(waiting) == 1


async def test_whoever_queues_again_keeps_the_place() -> None:
    bench = await full(1)
    first, second = await bench.arrive("first"), await bench.arrive("second")
    again = asyncio.create_task(bench._queue(0, "again", 60))
    await asyncio.sleep(0)
    for task in (again, first, second):
        bench.slots.offer(1)
        await soon(task)
    assert bench.served == ["again", "first", "second"]


async def test_idle_connections_are_taken_most_recently_used_first() -> None:
    bench = await full(2)
    bench.slots.offer(1)
    bench.slots.offer(2)
    assert [bench.slots.take(), bench.slots.take(), bench.slots.take()] == [2, 1, None]


async def test_no_more_are_opened_than_wait_and_than_the_limit_allows() -> None:
    bench = Bench(3)
    one = await bench.arrive()
    assert (bench.begun, bench.slots.total, bench.slots.opening) == (1, 1, 1)
    others = [await bench.arrive() for _ in range(9)]
    assert (bench.begun, bench.slots.total, bench.slots.waiting) == (3, 3, 10)
    for task in (one, *others):
        task.cancel()
    await asyncio.gather(one, *others, return_exceptions=True)


async def test_without_a_limit_all_are_opened() -> None:
    bench = Bench(float("inf"))
    tasks = [await bench.arrive() for _ in range(20)]
    assert bench.begun == 20
    for _ in tasks:
        assert not bench.open()
    await asyncio.gather(*tasks)
    assert not bench.full()


async def test_an_opened_connection_goes_to_the_first_or_becomes_idle() -> None:
    bench = await full(2)
    bench.slots.free()
    opener = await bench.arrive()
    bench.slots.offer(1)
    assert await soon(opener) == 1  # a return was faster than its opening
    assert bench.open()
    assert list(bench.slots.idle) == [3]


async def test_the_deadline_ends_the_wait() -> None:
    bench = await full(1)
    with pytest.raises(DeadlinePassed):
        await soon(await bench.arrive(timeout=0.01))
    assert bench.slots.waiting == 0
    assert bench.offer(1)


async def test_those_whose_time_is_up_together_know_how_many_they_were() -> None:
    bench = await full(1)
    deadline = asyncio.get_running_loop().time() + 0.01
    tasks = [asyncio.create_task(bench.slots.wait(ticket, deadline)) for ticket in (1, 2, 3)]
    for task in tasks:
        with pytest.raises(DeadlinePassed) as passed:
            await soon(task)
        assert passed.value.waiting == 3


async def test_a_deadline_that_has_passed_already_ends_the_wait() -> None:
    bench = await full(1)
    with pytest.raises(DeadlinePassed):
        await soon(await bench.arrive(timeout=-1))


async def test_a_waiter_cancelled_at_the_moment_of_service_passes_it_on() -> None:
    bench = await full(1)
    cancelled, next_one = await bench.arrive(), await bench.arrive("next")
    bench.slots.offer(1)
    cancelled.cancel()
    assert await soon(next_one) == 1
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_a_waiter_cancelled_at_the_moment_of_failure_says_nothing_later() -> None:
    """No exception is left in a future for the garbage collector to complain about."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    bench = Bench(1)
    task = await bench.arrive()
    bench.slots.refused(OSError("refused"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()
    assert complaints == []
    assert bench.slots.total == 0


async def test_one_cancelled_before_it_runs_does_not_block_a_newcomer() -> None:
    """The cancelled task still stands in the queue when a connection comes back."""
    bench = await full(1)
    gone = await bench.arrive()
    gone.cancel()
    assert bench.slots.waiting == 0
    assert bench.offer(1)
    assert bench.slots.take() == 1
    bench.slots.offer(1)
    assert await soon(await bench.arrive()) == 1
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_one_cancelled_in_the_middle_of_the_queue_is_skipped() -> None:
    bench = await full(1)
    tasks = [await bench.arrive(name) for name in "abc"]
    tasks[0].cancel()
    tasks[1].cancel()
    bench.slots.offer(1)
    assert await soon(tasks[2]) == 1
    await asyncio.gather(*tasks, return_exceptions=True)
    assert bench.slots.waiting == 0


async def test_when_all_are_dismissed_each_gets_an_error_of_its_own_and_newcomers_wait() -> None:
    bench = await full(1)
    first, gone, last = [await bench.arrive(name) for name in ("first", "gone", "last")]
    gone.cancel()  # he has not noticed yet
    bench.slots.dismiss(lambda: ConnectionError("the server has left"))
    newcomer = await bench.arrive("newcomer")
    errors = await asyncio.gather(first, gone, last, return_exceptions=True)
    assert [type(error) for error in errors] == [
        ConnectionError,
        asyncio.CancelledError,
        ConnectionError,
    ]
    assert errors[0] is not errors[2]
    bench.slots.offer(7)
    assert await soon(newcomer) == 7


async def test_what_became_idle_meanwhile_is_given_to_whoever_queues_again() -> None:
    """One that queues again, since its connection was dead, must not wait beside an idle one."""
    bench = await full(2)
    bench.slots.offer(1)
    assert await soon(await bench.arrive()) == 1
    assert bench.full()


async def test_it_is_full_from_the_last_taken_to_the_first_given_back() -> None:
    bench = Bench(2)
    assert not bench.full()
    tasks = [await bench.arrive() for _ in range(2)]
    since = bench.slots.full_since
    assert since is not None  # the second slot is in use as soon as its opening begins
    bench.open()
    bench.open()
    await asyncio.gather(*tasks)
    assert bench.slots.full_since == since
    bench.slots.offer(1)
    assert not bench.full()
    assert bench.slots.take() == 1
    assert bench.full()
    bench.slots.free()
    assert not bench.full()


async def test_a_freed_slot_is_opened_for_those_who_wait() -> None:
    bench = await full(1)
    waiting = await bench.arrive()
    assert bench.slots.opening == 0
    bench.slots.free()
    assert bench.slots.opening == 1
    bench.open()
    assert await soon(waiting) == 2


async def test_a_refusal_is_told_to_one_and_the_others_get_their_own() -> None:
    bench = Bench(1)
    tasks = [await bench.arrive() for _ in range(3)]
    for begun, task in enumerate(tasks, 1):
        assert bench.begun == begun
        error = OSError("refused")
        bench.slots.refused(error)
        with pytest.raises(OSError) as caught:
            await soon(task)
        assert caught.value is error
    assert (bench.slots.total, bench.slots.outage) == (0, None)


async def test_a_refusal_that_nobody_waits_for_is_told_to_nobody() -> None:
    bench = Bench(1)
    task = await bench.arrive()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    bench.slots.refused(OSError("refused"))
    assert bench.slots.total == 0


async def test_an_opening_given_up_is_begun_again_for_those_who_wait() -> None:
    bench = Bench(1)
    task = await bench.arrive()
    bench.slots.gave_up()
    assert (bench.begun, bench.slots.total) == (2, 1)
    bench.open()
    await soon(task)


@pytest.mark.usefixtures("impatient")
async def test_an_outage_has_one_prober_whose_success_lets_all_in() -> None:
    bench = Bench(3)
    tasks = [await bench.arrive(str(number)) for number in range(10)]
    assert bench.begun == 3
    outage = OSError("down")
    for _ in range(3):
        bench.slots.failed(outage)
    assert bench.down()
    assert (bench.slots.total, bench.slots.opening) == (0, 0)
    for probe in range(4, 50):
        while bench.begun < probe:
            await asyncio.sleep(0.0005)
        late = await bench.arrive()  # newcomers probe nothing
        late.cancel()
        assert (bench.begun, bench.slots.opening, bench.slots.total) == (probe, 1, 1)
        bench.slots.failed(outage)
    while bench.begun < 50:
        await asyncio.sleep(0.0005)
    bench.open()
    assert not bench.down()
    assert (bench.begun, bench.slots.opening) == (52, 2)
    bench.open()
    bench.open()
    for _ in range(7):
        await asyncio.sleep(0)
        bench.slots.offer(1)
    await asyncio.gather(*tasks)
    assert bench.served == [str(number) for number in range(10)]


@pytest.mark.usefixtures("impatient")
async def test_an_outage_of_any_length_goes_on_being_probed() -> None:
    """The pauses double up to the longest; 2**1024 pauses would be more than a float holds."""
    bench = Bench(1)
    task = await bench.arrive()
    bench.slots._failed_probes = 5000
    bench.slots.failed(OSError("down"))
    while bench.begun < 2:
        await asyncio.sleep(0.0005)
    bench.open()
    await soon(task)


@pytest.mark.usefixtures("impatient")
async def test_an_outage_that_nobody_waits_through_is_forgotten() -> None:
    bench = Bench(1)
    task = await bench.arrive(timeout=0.0001)
    await asyncio.gather(task, return_exceptions=True)
    bench.slots.failed(OSError("down"))
    while bench.down():
        await asyncio.sleep(0.0005)
    assert bench.begun == 1
    waiting = await bench.arrive()
    assert bench.begun == 2
    bench.open()
    await soon(waiting)


async def test_a_connection_that_comes_back_is_used_during_an_outage() -> None:
    """Too many clients, say: what is open is as good as ever."""
    bench = await full(2)
    bench.slots.free()
    waiting = await bench.arrive()
    bench.slots.failed(OSError("too many"))
    bench.slots.offer(1)
    assert await soon(waiting) == 1


async def test_a_success_under_way_ends_the_outage_and_its_probe() -> None:
    bench = Bench(2)
    tasks = [await bench.arrive() for _ in range(2)]
    bench.slots.failed(OSError("down"))
    assert bench.slots._probe is None  # the other opening is probe enough
    bench.open()
    assert not bench.down()
    bench.open()
    await asyncio.gather(*tasks)
    bench.slots.free()
    waiting = await bench.arrive()
    bench.slots.failed(OSError("down"))
    bench.slots._open()
    bench.open()
    assert (bench.slots.outage, bench.slots._probe) == (None, None)
    await soon(waiting)


def test_the_pauses_of_an_outage_double_up_to_a_second() -> None:
    assert slots_module._FIRST_PAUSE * 2**slots_module._DOUBLINGS >= slots_module._LONGEST_PAUSE


async def test_one_who_was_served_at_the_deadline_has_been_served() -> None:
    bench = await full(1)
    task = await bench.arrive()
    waiter = bench.slots._waiters[0]
    bench.slots.offer(1)
    waiter.expire(1)
    assert await soon(task) == 1


def note(standing: Standing, *served: tuple[float, float], left: bool = True) -> Standing:
    for now, waited in served:
        standing.served(now, waited, left=left)
    return standing


def test_a_burst_is_no_queue_that_stands() -> None:
    standing = note(Standing(0.05), (0.0, 0.0), (0.1, 0.3), (0.5, 0.3))
    assert (standing.patience, standing.places) == (float("inf"), float("inf"))


def test_a_queue_stands_while_nobody_is_served_within_the_target() -> None:
    standing = note(Standing(0.05), (0.0, 0.06), (0.2, 0.06), (0.6, 0.06))
    assert standing.patience == pytest.approx(0.1)
    assert note(standing, (0.7, 0.01)).patience == float("inf")
    assert note(standing, (1.2, 0.06), (1.6, 0.06)).patience == float("inf")


def test_a_queue_that_is_used_up_does_not_stand() -> None:
    """Who connects anew after a pause waits for long, and alone."""
    assert not note(Standing(0.05), (0.0, 0.3), (60.0, 0.3), left=False).stands


def test_a_queue_that_is_short_because_of_refusals_goes_on_to_stand() -> None:
    standing = note(Standing(0.05), (0.0, 0.06), (0.6, 0.06))
    standing.refused(0.7)
    assert note(standing, (1.1, 0.01)).stands
    assert not note(standing, (1.3, 0.01)).stands


def test_as_many_may_wait_as_are_served_in_time() -> None:
    standing = note(Standing(0.05), *((number / 100, 0.06) for number in range(102)))
    assert standing.places == pytest.approx(100 * 0.1, rel=0.05)


async def overloaded() -> tuple[Bench, int]:
    """A bench of one connection whose queue stands, and the connection, which is in use."""
    bench = Bench(1, queue_target=0.002)
    first = await bench.arrive()
    bench.open()
    connection = await soon(first)
    assert bench.slots._standing is not None
    bench.slots._standing.stands = True
    return bench, connection


async def test_in_a_queue_that_stands_who_waited_too_long_is_refused_and_the_next_is_served() -> (
    None
):
    bench, connection = await overloaded()
    bench.slots.limit = 2
    late, next_one = await bench.arrive("late"), await bench.arrive("next")
    bench.slots._waiters[0].since -= 1
    assert not bench.offer(connection)
    assert await soon(next_one) == connection
    with pytest.raises(DeadlinePassed):
        await soon(late)


async def test_in_a_queue_that_stands_patience_ends_before_the_deadline() -> None:
    bench, _ = await overloaded()
    with pytest.raises(DeadlinePassed):
        await soon(await bench.arrive(timeout=60))


async def test_where_all_have_waited_too_long_the_connection_is_kept() -> None:
    bench, connection = await overloaded()
    bench.slots.limit = 2
    late = [await bench.arrive() for _ in range(2)]
    for waiter in bench.slots._waiters:
        waiter.since -= 1
    assert bench.offer(connection)
    for task, left in zip(late, (2, 1), strict=True):
        with pytest.raises(DeadlinePassed) as passed:
            await soon(task)
        assert passed.value.waiting == left
    assert bench.slots.take() == connection


async def test_in_a_queue_that_stands_a_newcomer_without_a_place_is_refused_at_once() -> None:
    bench, connection = await overloaded()
    waiting = await bench.arrive()
    newcomer = await bench.arrive()
    assert newcomer.done()
    with pytest.raises(DeadlinePassed) as passed:
        await newcomer
    assert passed.value.waiting == 2
    # Who was given a dead connection has his place, before all others.
    again = asyncio.create_task(bench.slots.wait(0, asyncio.get_running_loop().time() + 60))
    await asyncio.sleep(0)
    assert not bench.offer(connection)
    assert await soon(again) == connection
    assert not bench.offer(connection)
    assert await soon(waiting) == connection


async def test_each_deadline_ends_its_own_wait_whoever_came_first() -> None:
    """One timer serves all who wait."""
    bench = await full(1)
    patient = await bench.arrive("patient", timeout=60)
    hasty = await bench.arrive("hasty", timeout=0.05)
    second = await bench.arrive("second", timeout=0.1)
    for loser in (hasty, second):
        with pytest.raises(DeadlinePassed):
            await soon(loser)
        assert not patient.done()
    bench.slots.offer(7)
    assert await soon(patient) == 7
    assert bench.slots._expiry is None


async def test_the_timer_of_all_ends_with_the_last_who_waits() -> None:
    """Here he leaves, and has not run since, when the timer is due."""
    bench = await full(1)
    loop = asyncio.get_running_loop()
    patient = await bench.arrive("patient", timeout=60)
    hasty = await bench.arrive("hasty", timeout=0.05)
    loop.call_at(bench.slots._expires_at - 0.001, patient.cancel)
    time.sleep(0.06)  # noqa: ASYNC251 - so that both are due in one turn of the loop
    with pytest.raises(DeadlinePassed):
        await soon(hasty)
    assert patient.cancelled()
    assert bench.slots._expiry is None
