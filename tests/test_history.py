"""The last minutes of a process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from reviewpoint_db.activity import Activity
from reviewpoint_db.history import INTERVAL, LENGTH, Gauges, History, Sample, merged

if TYPE_CHECKING:
    from reviewpoint_db.snapshots import ActivitySnapshot


def test_a_sample_tells_what_changed_since_the_last_one() -> None:
    activity, history = Activity("default"), History()
    activity.acquire_timed_out()
    history.add(100.0, Gauges(limit=5), activity.snapshot())
    for _ in range(3):
        activity.acquire_timed_out()
    activity.connection_failed("refused")
    activity.statement_failed("23505", 0.1)
    history.add(102.3, Gauges(out=2, limit=5), activity.snapshot())
    first, second = history.samples
    assert (first.at, first.errors, first.acquired) == (100, 0, 0)
    assert (second.at, second.errors, second.gauges.out) == (102, 5, 2)
    assert second.wait_p99 is None


def test_percentiles_are_those_of_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    activity, history = Activity("default"), History()
    activity._wait.record(30.0)
    history.add(100.0, Gauges(), activity.snapshot())
    activity._wait.record(0.01)
    history.add(102.0, Gauges(), activity.snapshot())
    sample = history.samples[-1]
    assert sample.acquired == 1
    assert sample.wait_p99 is not None
    assert 0.01 <= sample.wait_p99 <= 0.02


def test_it_is_bounded_and_its_times_only_go_up() -> None:
    activity, history = Activity("default"), History()
    for second in range(2 * LENGTH):
        history.add(float(second * INTERVAL), Gauges(out=second), activity.snapshot())
    assert len(history.samples) == LENGTH
    last = history.samples[-1]
    history.add(last.at + 0.4, Gauges(), activity.snapshot())
    history.add(last.at - INTERVAL, Gauges(), activity.snapshot())
    assert history.samples[-1] == last


def test_it_goes_on_where_the_clock_is_set_back() -> None:
    activity, history = Activity("default"), History()
    for at in (1000.0, 1002.0):
        history.add(at, Gauges(), activity.snapshot())
    activity.acquire_timed_out()
    for at in (500.0, 502.0):
        history.add(at, Gauges(), activity.snapshot())
    assert [(sample.at, sample.errors) for sample in history.samples] == [(500, 1), (502, 0)]


def test_processes_are_added_up_and_the_worst_percentile_counts() -> None:
    def sample(at: int, wait: float | None, limit: int | None = 5) -> Sample:
        return Sample(at, Gauges(1, 2, 3, limit), 4, 5, wait, wait, wait, None)

    one = [sample(100, 0.1), sample(102, None), sample(104, 0.2, None)]
    two = [sample(102, 0.3), sample(104, 0.1)]
    first, second, third = merged([one, two])
    assert first == one[0]
    assert second.gauges == Gauges(2, 4, 6, 10)
    assert (second.acquired, second.errors) == (8, 10)
    assert (second.wait_p50, second.wait_p99, second.use_p99) == (0.3, 0.3, None)
    assert (third.wait_p50, third.gauges.limit) == (0.2, None)


async def test_it_keeps_on_until_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reviewpoint_db.history.INTERVAL", 0.05)
    activity, history = Activity("default"), History()
    looks: list[Any] = []

    def look() -> tuple[Gauges, ActivitySnapshot]:
        looks.append(None)
        return Gauges(), activity.snapshot()

    task = asyncio.create_task(history.keep(look))
    async with asyncio.timeout(10):
        while len(looks) < 3:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
