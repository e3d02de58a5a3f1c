"""What lasts too long is said in the log, once an episode, with the handler's name."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db import lateness
from reviewpoint_db import watch as watch_module
from reviewpoint_db.activity import Activity
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.watch import Watch
from tests.support.logs import logged
from tests.support.pools import until


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Database]:
    settings.setdefault("environment", "test")  # where no thread watches: the tests look themselves
    async with Database(DatabaseConfig(url=url, **settings)) as database:
        yield database


def watch_of(database: Database, *, leak: float = 30.0, idle: float = 30.0) -> Watch:
    return Watch(database.activity, leak_threshold=leak, idle_threshold=idle)


async def test_a_connection_held_for_too_long_is_named_once_and_its_return_too(
    database_url: str,
) -> None:
    async with opened(database_url) as database:
        events: list[tuple[str, dict[str, Any]]] = []
        database.activity.subscribe(lambda event, data: events.append((event, data)))
        watch = watch_of(database, leak=0.0)
        with logged() as lines:
            async with database.session(origin="GET /slow") as session:
                await session.execute(text("select 'secret'"))
                watch.look_at_holders()
                watch.look_at_holders()
        _, warning, returned = lines  # the first is of the engine
        assert warning.startswith("WARNING|GET /slow holds a connection for longer than 0 s")
        assert "now in test_a_connection_held_for_too_long" in warning
        assert warning.endswith("last statement: select ?.\n")
        assert returned.startswith("INFO|GET /slow returned its connection after ")
        ((event, data),) = events
        assert (event, data["origin"], data["database"]) == ("db.leak", "GET /slow", "default")
        assert data["held"] > 0


async def test_a_task_that_ended_with_a_connection_is_named_at_the_second_look(
    sqlite_url: str,
) -> None:
    async with opened(sqlite_url) as database:
        kept = []

        async def forget() -> None:
            connection = database.engine.connect()
            kept.append(await connection.start())

        await asyncio.create_task(forget(), name="forgetful")
        watch = watch_of(database)
        with logged("WARNING") as lines:
            watch.look_at_holders()
            assert lines == []
            watch.look_at_holders()
            watch.look_at_holders()
        (line,) = lines
        assert "forgetful took a connection and ended without returning it" in line
        assert database.activity.snapshot().warnings == {"leak": 1}
        await kept[0].close()


async def test_a_transaction_in_which_nothing_happens_is_named_once_an_episode(
    database_url: str,
) -> None:
    async with opened(database_url) as database:
        watch = watch_of(database, idle=0.0)
        async with database.session(origin="POST /reviews") as session:
            with logged("WARNING") as lines:
                await session.execute(text("select 1"))
                watch.look_at_holders()
                watch.look_at_holders()
                assert len(lines) == 1
                await session.execute(text("select 1"))
                watch.look_at_holders()
            assert len(lines) == 2
        assert "POST /reviews is idle in a transaction for " in lines[0]
        assert "now in test_a_transaction_in_which_nothing_happens" in lines[0]
        async with database.engine.connect() as connection:
            with logged("WARNING") as lines:
                watch.look_at_holders()
            assert lines == []
            assert connection is not None


async def test_those_of_one_handler_in_one_place_are_one_warning(postgres_url: str) -> None:
    async with opened(postgres_url, pool=PoolConfig(size=5)) as database:
        events: list[dict[str, Any]] = []
        database.activity.subscribe(lambda _event, data: events.append(data))
        release = asyncio.Event()

        async def render(session: AsyncSession) -> None:
            await session.execute(text("select 'secret'"))
            await release.wait()

        async def mail(session: AsyncSession) -> None:
            await session.execute(text("select 2"))
            await release.wait()

        async def handle(work: Callable[[AsyncSession], Awaitable[None]]) -> None:
            async with database.session(origin="GET /tasks") as session:
                await work(session)

        def idle() -> int:
            return sum(one.state == "idle in transaction" for one in database.activity.holders())

        tasks = [asyncio.create_task(handle(work)) for work in (render, mail, render, render)]
        await until(lambda: idle() == 4)
        watch = watch_of(database, leak=0.0, idle=0.0)
        with logged("WARNING") as lines:
            watch.look_at_holders()
            watch.look_at_holders()
            tasks.append(asyncio.create_task(handle(mail)))
            await until(lambda: idle() == 5)
            watch.look_at_holders()
        release.set()
        await asyncio.gather(*tasks)
        place = r", now in \S*render \(\S+test_watch.py:\d+\); last statement: select \?"
        several = [line for line in lines if "render" in line]
        assert re.fullmatch(
            r"WARNING\|GET /tasks holds 3 connections for longer than 0 s \(the oldest since \d+\.\d s\)"
            + place
            + r"\.\n",
            several[0],
        )
        assert re.fullmatch(
            r"WARNING\|GET /tasks is idle in 3 transactions, the oldest for \d+\.\d s"
            + place
            + r"\. Their locks and connections are kept .*\n",
            several[1],
        )
        assert len(several) == 2
        # One each look for those who are elsewhere, or came later.
        single = [line for line in lines if "mail" in line]
        assert [line.partition("(")[0].partition(" for ")[0] for line in single] == [
            "WARNING|GET /tasks holds a connection",
            "WARNING|GET /tasks is idle in a transaction",
        ] * 2
        assert [(one["origin"], one["held"] > 0) for one in events] == [("GET /tasks", True)] * 3
        # What is counted is what was logged.
        assert database.activity.snapshot().warnings == {"leak": 3, "idle_in_transaction": 3}


async def test_tasks_of_one_handler_that_ended_with_connections_are_one_leak(
    sqlite_url: str,
) -> None:
    async with opened(sqlite_url) as database:
        kept = []

        async def forget() -> None:
            kept.append(await database.engine.connect().start())

        names = ("another", "forgetful", "forgetful")
        tasks = [asyncio.create_task(forget(), name=name) for name in names]
        await asyncio.gather(*tasks)
        watch = watch_of(database)
        with logged("WARNING") as lines:
            watch.look_at_holders()
            watch.look_at_holders()
        assert [line.partition(" (")[0] for line in lines] == [
            "WARNING|another took a connection and ended without returning it",
            "WARNING|forgetful took 2 connections and ended without returning them",
        ]
        for connection in kept:
            await connection.close()


async def test_short_work_is_not_named(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database, database.session() as session:
        await session.execute(text("select 1"))
        with logged("WARNING") as lines:
            watch_of(database).look_at_holders()
        assert lines == []


def block(seconds: float) -> None:
    time.sleep(seconds)


async def test_what_blocks_the_loop_is_named_with_its_stack_and_how_late_it_was(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lateness, "LATE", 0.2)
    monkeypatch.setattr(watch_module, "_ROUND", 0.1)
    async with opened(sqlite_url, environment="dev") as database:
        with logged("WARNING") as lines:
            async with database.session(origin="GET /report") as session:
                await session.execute(text("select 1"))
                block(0.6)
                await until(lambda: database.activity.loop_late)
            naming = [line for line in lines if "GET /report" in line]
        during, after = naming
        assert "The event loop is late by " in during
        assert "blocked by block (tests/test_watch.py:" in during
        assert re.fullmatch(
            r"WARNING\|The event loop was blocked for 0\.[5-9] s by block "
            r"\(tests/test_watch\.py:\d+\) in GET /report\. Everything waits meanwhile.*\n",
            after,
        ), after
        late = database.activity.loop_late
        assert late is not None
        assert late.seconds >= 0.2
        assert (late.place or "").startswith("block (tests/test_watch.py:")
        snapshot = database.activity.snapshot()
        assert snapshot.warnings["event_loop_late"] >= 1
        # On the page it is one, with how long it was and the stack.
        told = [each for each in snapshot.recent_warnings if each.origin == "GET /report"]
        assert len(told) == 1
        assert "was blocked for 0." in told[0].message
        assert "(asyncio.to_thread). Stack: block (" in told[0].message
        assert " < " in told[0].message


async def test_a_loop_that_no_thread_could_look_at_says_so_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lateness, "LATE", 0.0)
    monkeypatch.setattr(lateness, "BEAT", 0.01)
    activity = Activity("papers")
    watch = Watch(activity, leak_threshold=30, idle_threshold=30)
    monkeypatch.setattr(watch, "look_at_loops", lambda: None)
    with logged("WARNING") as lines:
        watch.start()
        await until(lambda: activity.loop_late)
        watch.stop()
        watch.stop()
    assert lines[0].startswith("WARNING|The event loop was blocked for 0.0 s. Everything waits")


async def test_a_library_that_blocks_is_named_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness, "LATE", -1.0)
    monkeypatch.setattr(lateness, "where", lambda _stack: None)
    activity = Activity("papers")
    watch = Watch(activity, leak_threshold=30, idle_threshold=30)
    monkeypatch.setattr(watch, "_run", lambda _ended: None)
    watch.start()
    with logged("WARNING") as lines:
        watch.look_at_loops()
        watch.look_at_loops()
    watch.stop()
    (line,) = lines
    assert "blocked by a library: " in line
    task = asyncio.current_task()
    assert task is not None
    assert f"in {task.get_name()}" in line


def test_a_loop_that_pauses_is_not_late_and_one_that_is_closed_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lateness, "LATE", 0.2)
    monkeypatch.setattr(lateness, "BEAT", 0.02)
    activity = Activity("papers")
    watch = Watch(activity, leak_threshold=30, idle_threshold=30)
    watch.look_at_loops()  # not started: nothing to look at

    async def start() -> None:
        watch.start()

    async def go_on() -> None:
        await asyncio.sleep(0.1)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    thread = watch._thread
    assert thread is not None
    deadline = time.monotonic() + 10
    while not watch._beats[0].paused:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)  # longer than LATE
    with logged("WARNING") as lines:
        loop.run_until_complete(go_on())
    assert lines == []
    assert activity.loop_late is None
    loop.close()
    thread.join(10)
    assert not thread.is_alive()
    watch.stop()


async def test_without_observation_nothing_watches(sqlite_url: str) -> None:
    async with opened(sqlite_url, environment="dev", observe=False) as database:
        assert database._watch._thread is None
    async with opened(sqlite_url, environment="dev") as database:
        thread = database._watch._thread
        assert thread is not None
        assert thread.is_alive()
    assert not thread.is_alive()


async def test_two_databases_log_a_late_loop_once_and_both_remember_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lateness, "LATE", -1.0)
    activities = [Activity("papers"), Activity("mails")]
    watches = [Watch(one, leak_threshold=30, idle_threshold=30) for one in activities]
    for watch in watches:
        monkeypatch.setattr(watch, "_run", lambda _ended: None)
        watch.start()
    with logged("WARNING") as lines:
        for watch in watches:
            watch.look_at_loops()
        watches[0]._beats[0]._timer.cancel()
        watches[0]._beats[0]._beat()
    assert ["late by" in line for line in lines] == [True, False]
    for activity, watch in zip(activities, watches, strict=True):
        assert activity.snapshot().warnings == {"event_loop_late": 1}
        assert activity.loop_late is not None
        watch.stop()
        watch.stop()


async def test_the_second_loop_of_a_database_is_watched_too(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lateness, "LATE", 0.2)

    async def second(database: Database) -> None:
        async with database.session(origin="second loop") as session:
            await session.execute(text("select 1"))
            block(0.6)
            await until(lambda: database.activity.loop_late)

    async with opened(sqlite_url, environment="dev") as database:
        with logged("WARNING") as lines:
            await asyncio.to_thread(asyncio.run, second(database))
        (line,) = [line for line in lines if "The event loop is late" in line]
        assert "in second loop, blocked by block (tests/test_watch.py:" in line


def test_a_loop_that_comes_after_one_that_was_closed_without_a_stop_is_watched(
    sqlite_url: str,
) -> None:
    database = Database(DatabaseConfig(url=sqlite_url, environment="dev"))

    async def serve(*, stop: bool) -> threading.Thread | None:
        await database.start()
        async with database.session() as session:
            await session.execute(text("select 1"))
        thread = database._watch._thread
        if stop:
            await database.stop()
        return thread

    first = asyncio.run(serve(stop=False))
    assert first is not None
    first.join(10)
    assert not first.is_alive()
    assert database.started
    second = asyncio.run(serve(stop=True))
    assert second is not None
    assert second is not first
    assert not second.is_alive()


async def test_a_thread_that_ends_late_takes_no_other_ones_place() -> None:
    watch = Watch(Activity("papers"), leak_threshold=30, idle_threshold=30)
    watch.start()
    before = watch._ended
    watch.stop()
    watch.start()
    thread = watch._thread
    watch._beats, beats = (), watch._beats
    assert watch._out_of_work(before)
    assert watch._thread is thread
    watch._beats = beats
    watch.stop()


async def test_a_beat_ends_with_its_last_database_and_is_no_later_loops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    activity = Activity("papers")

    async def beat() -> lateness.Beat:
        return lateness.beat_of(activity)

    closed = (await asyncio.to_thread(asyncio.run, beat())).loop
    assert closed.is_closed()
    mine = lateness.beat_of(activity)
    assert closed not in lateness._beats
    mine.leave(activity)
    mine.leave(activity)
    assert mine.loop not in lateness._beats
    monkeypatch.setattr(mine, "_schedule", lambda: pytest.fail("it beats on"))
    mine._beat()  # was under way in its thread when another one ended it


def test_an_engine_of_no_loop_starts_no_watch() -> None:
    watch = Watch(Activity("papers"), leak_threshold=30, idle_threshold=30)
    watch._ended.clear()
    watch.join_loop()
    assert watch._beats == ()
