"""Counters, timers and holders: true, cheap to write, and safe to read."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from sqlalchemy import text

from reviewpoint_db.activity import BUCKETS, Activity, Event, Histogram, Holder, Work
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.context import current_origin, current_units
from reviewpoint_db.database import Database
from reviewpoint_db.transaction import Terms, UnitOfWork
from tests.support.logs import logged

if TYPE_CHECKING:
    pass


def test_a_percentile_is_right_within_a_factor_of_two() -> None:
    histogram = Histogram()
    assert histogram.snapshot().percentile(0.99) is None
    for milliseconds in range(1, 101):
        histogram.record(milliseconds / 1000)
    snapshot = histogram.snapshot()
    for fraction in (0.01, 0.5, 0.9, 0.99, 1.0):
        found = snapshot.percentile(fraction)
        assert found is not None
        assert fraction / 10 <= found <= 2 * fraction / 10
    assert (snapshot.count, snapshot.maximum) == (100, 0.1)
    assert snapshot.total == pytest.approx(5.05)


def test_a_duration_beyond_all_buckets_counts_too() -> None:
    histogram = Histogram()
    histogram.record(BUCKETS[-1] * 10)
    assert histogram.snapshot().percentile(0.5) == BUCKETS[-1] * 10
    histogram.record(0)
    assert histogram.snapshot().percentile(0.5) == BUCKETS[0]


async def test_a_connection_that_outlives_its_request_is_still_named_by_it(
    sqlite_url: str,
) -> None:
    async with Database(DatabaseConfig(url=sqlite_url)) as database:
        for use in (True, False):
            scope: dict[str, Any] = {"headers": [(b"x-request-id", b"abc")]}
            unit: UnitOfWork | None = UnitOfWork(
                Terms(database, origin=lambda _scope: "GET /leak leak"), scope
            )
            assert unit is not None
            token = current_units.set({"default": unit})
            async with database.engine.connect() as connection:
                current_units.reset(token)
                if use:
                    assert await unit.session.scalar(text("select 42")) == 42
                    await unit.release()
                else:
                    unit.close()
                unit = None
                (holder,) = database.activity.holders()
                assert (holder.handler, holder.origin) == ("GET /leak leak", "GET /leak leak [abc]")
                assert await connection.scalar(text("select 42")) == 42


async def test_a_connection_of_the_second_database_outlives_its_request_by_name_too(
    sqlite_url: str,
) -> None:
    configs = [DatabaseConfig(url=sqlite_url, name=name) for name in ("default", "mails")]
    async with Database(configs[0]) as first, Database(configs[1]) as second:
        terms = [Terms(one, origin=lambda _scope: "GET /leak leak") for one in (first, second)]
        units: dict[str, UnitOfWork] = {
            one.database.name: UnitOfWork(one, {"headers": []}) for one in terms
        }
        token = current_units.set(units)
        async with second.engine.connect():
            current_units.reset(token)
            units.popitem()[1].close()
            units.clear()
            (holder,) = second.activity.holders()
            assert holder.handler == "GET /leak leak"


async def test_everything_is_counted_and_a_snapshot_stays_as_it_was() -> None:
    activity = Activity("papers")
    before = activity.snapshot()
    activity.engine_created()
    activity.session_created()
    activity.connection_opened(0.1)
    activity.connection_failed("refused")
    activity.connection_closed("idle")
    activity.connection_closed("idle")
    activity.connection_closed("lost")
    activity.pinged()
    holder = Holder(time.monotonic())
    activity.acquired(holder, 0.2, queued=True)
    activity.acquired(Holder(time.monotonic()), 0.0, queued=False)
    activity.released(holder, holder.since + 3)
    activity.acquire_canceled()
    activity.acquire_timed_out()
    after = activity.snapshot()
    assert (before.acquired, before.closed, before.holders) == (0, {}, ())
    assert (after.engines_created, after.sessions_created, after.connection_failures) == (1, 1, 1)
    assert (after.acquired, after.waited, after.canceled, after.timed_out) == (2, 1, 1, 1)
    assert (after.opened, after.pings, after.closed) == (1, 1, {"idle": 2, "lost": 1})
    assert (after.wait.maximum, after.use.maximum, after.creation.maximum) == (0.2, 3, 0.1)
    assert len(after.holders) == 1
    with pytest.raises(AttributeError):
        after.acquired = 3  # type: ignore[misc]
    assert msgspec.json.decode(msgspec.json.encode(after))["acquired"] == 2


def test_threads_lose_no_count() -> None:
    activity = Activity("papers")

    def work() -> None:
        for _ in range(2000):
            holder = Holder(0.0)
            activity.acquired(holder, 0.001, queued=True)
            activity.released(holder, 1.0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    snapshot = activity.snapshot()
    assert (snapshot.acquired, snapshot.waited, snapshot.use.count) == (16000, 16000, 16000)
    assert snapshot.holders == ()


async def test_a_holder_is_named_by_its_session_or_its_task() -> None:
    activity = Activity("papers")
    token = current_origin.set("nightly import")
    activity.acquired(Holder(time.monotonic() - 2), 0, queued=False)
    current_origin.reset(token)
    activity.acquired(Holder(time.monotonic() - 1), 0, queued=False)
    first, second = activity.holders()  # the longest first
    assert str(first).startswith("nightly import (for 2.")
    task = asyncio.current_task()
    assert task is not None
    assert str(second).startswith(f"{task.get_name()} (for 1.")
    assert not first.abandoned
    assert Holder(0).task is task


async def test_a_holder_is_named_by_its_request_when_somebody_asks() -> None:
    """The names are made when they are read: every checkout would pay for them else."""
    asked: list[str] = []

    def name() -> str:
        asked.append("origin")
        return "GET /papers list_papers"

    database: Any = type("Database", (), {"open_session": None})()
    unit: UnitOfWork | None = UnitOfWork(Terms(database, origin=lambda _scope: name()))
    assert unit is not None
    token = current_units.set({"default": unit})
    holder = Holder(time.monotonic())
    current_units.reset(token)
    assert asked == []
    assert holder.origin == "GET /papers list_papers"
    # It keeps nothing alive: a leaked request must remain for the garbage collector to find.
    unit = None
    gc.collect()
    assert holder.origin is None


async def test_a_holder_whose_task_has_ended_is_a_leak() -> None:
    async def take() -> Holder:
        return Holder(time.monotonic())

    task = asyncio.create_task(take(), name="forgetful")
    holder = await task
    assert holder.abandoned
    assert str(holder.snapshot(holder.since)) == "forgetful (for 0.0 s, its task has ended: a leak)"
    del task
    await asyncio.sleep(0)  # the loop's last reference
    gc.collect()
    assert (holder.task, holder.task_name, holder.abandoned) == (None, "a task that is gone", True)


async def test_a_holder_outside_of_tasks_is_never_called_a_leak() -> None:
    made: list[Holder] = []
    asyncio.get_running_loop().call_soon(lambda: made.append(Holder(time.monotonic())))
    await asyncio.sleep(0)
    (holder,) = made
    assert (holder.task, holder.task_name, holder.abandoned) == (None, "no task", False)


def test_listeners_hear_events_until_they_unsubscribe_and_stop_nothing() -> None:
    activity = Activity("papers")
    heard: list[tuple[Event, dict[str, Any]]] = []

    def fail(event: Event, data: dict[str, Any]) -> None:
        raise ValueError("secret")

    activity.subscribe(fail)
    unsubscribe = activity.subscribe(lambda event, data: heard.append((event, data)))
    with logged("ERROR") as lines:
        activity.emit("db.started", at=1)
    unsubscribe()
    activity.emit("db.stopped")
    assert heard == [("db.started", {"database": "papers", "at": 1})]
    assert lines == ["ERROR|A listener of db.started failed: ValueError\n"]


def test_a_sink_that_fails_stops_nothing() -> None:
    activity = Activity("papers")
    heard: list[str] = []

    def fail(*_: object) -> None:
        raise ValueError("secret")

    activity.feed(fail)
    activity.feed(lambda measure, *_: heard.append(measure))
    with logged("ERROR") as lines:
        activity.connection_closed("idle")
    assert heard == ["closed"]
    assert lines == ["ERROR|A sink of measurements failed: ValueError\n"]


def test_warnings_of_the_same_words_are_counted_however_many_there_are() -> None:
    activity = Activity("papers")
    for number in range(95):
        activity.warn("leak", f"GET /a papers.a [{number:x}-f] holds a connection for {number} s")
    activity.warn("leak", "GET /b papers.b holds a connection for 1 s")
    activity.warn("n_plus_one", "GET /b papers.b holds a connection for 1 s")
    recent = activity.snapshot().recent_warnings
    assert [each.count for each in recent[:4]] == [1, 1, 95, 94]
    assert len(recent) == 50


def test_of_too_many_warnings_those_not_said_for_longest_are_counted_anew() -> None:
    activity = Activity("papers")
    for number in range(200):
        activity.warn("leak", "holds " + "a" * number)
    activity.warn("leak", "holds ")
    activity.warn("leak", "another")  # more than are kept: what was said second goes
    assert len(activity._said) == 200
    for words, count in (("holds ", 3), ("holds a", 1)):
        activity.warn("leak", words)
        assert activity.snapshot().recent_warnings[0].count == count


def test_labels_are_bounded_for_those_who_listen_too() -> None:
    activity = Activity("papers")
    told: dict[str, set[str]] = {"session": set(), "statement_failed": set()}
    activity.feed(lambda measure, _value, label, _text: told.setdefault(measure, set()).add(label))
    for number in range(1000):
        work = Work()
        work.opened = time.monotonic()
        work.holder = Holder(time.monotonic())
        work.holder._origin = f"GET /papers/{number}"
        activity.session_ended(work)
        activity.statement_failed(f"P{number:04}", 0.001)
    snapshot = activity.snapshot()
    assert told["session"] == snapshot.sessions.keys()
    assert told["statement_failed"] == snapshot.statement_errors.keys()
    assert (len(snapshot.sessions), len(snapshot.statement_errors)) == (201, 101)
    assert snapshot.sessions["(others)"].count == 800
    assert snapshot.statement_errors["(others)"] == 900
