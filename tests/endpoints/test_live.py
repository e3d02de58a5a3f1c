"""The document behind the live page."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from reviewpoint_db import live as live_module
from reviewpoint_db.activity import Holder
from reviewpoint_db.checks import run_checks
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.context import current_origin
from reviewpoint_db.database import Database
from reviewpoint_db.endpoints.live import live_figures, serving
from reviewpoint_db.endpoints.report import HolderReport, Notice, Statement, Waiter, WorkerReport
from reviewpoint_db.endpoints.worker import worker_report
from reviewpoint_db.history import Gauges, Sample
from reviewpoint_db.server_view import ServerView
from reviewpoint_db.siblings import Siblings
from reviewpoint_db.snapshots import LoopLate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.support.postgres import PostgresServer


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for sockets: their paths may have no more than 107 characters."""
    with TemporaryDirectory(prefix="rp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def config(url: str, **settings: Any) -> DatabaseConfig:
    pool = PoolConfig(size=2, max_overflow=0, timeout=5.0)
    return DatabaseConfig(url=url, environment="dev", pool=pool, **settings)


@pytest.fixture
async def database(database_url: str, runtime: Path) -> AsyncIterator[Database]:
    async with Database(config(database_url)) as started, serving(started):
        yield started


async def figures(database: Database) -> Any:
    reply = await live_figures(database)
    assert reply.status == 200
    assert reply.headers["cache-control"] == "no-store"
    return json.loads(reply.body)


async def until(database: Database, holds: Any) -> Any:
    async with asyncio.timeout(20):
        while not holds(found := await figures(database)):
            await asyncio.sleep(0.02)
    return found


async def test_it_says_who_holds_what_and_where_they_are(database: Database) -> None:
    done = asyncio.Event()

    async def send_mail() -> None:
        await done.wait()

    async def job() -> None:
        async with database.session(origin="nightly job") as session:
            await session.execute(text("select 42"))
            await send_mail()

    task = asyncio.create_task(job())
    found = await until(
        database, lambda live: [each["place"] for each in live["holders"]] == ["send_mail"]
    )
    (holder,) = found["holders"]
    assert (holder["route"], holder["place"]) == ("nightly job", "send_mail")
    assert (holder["pid"], holder["abandoned"]) == (os.getpid(), False)
    assert (holder["statement"], holder["state"]) == ("select ?", "idle in transaction")
    functions = [frame["function"].rpartition(".")[2] for frame in holder["stack"]]
    assert functions == ["job", "send_mail", "wait"]
    assert found["gauges"] == {"out": 1, "idle": 0, "waiting": 0, "limit": 2}
    assert found["statements"][0]["origin"] == "nightly job"
    assert "p%40ss" not in json.dumps(found)
    done.set()
    await task
    assert (await figures(database))["holders"] == []


async def test_the_headline_counts_more_than_the_table_shows(database: Database) -> None:
    for _ in range(60):
        database.activity.acquired(Holder(time.monotonic()), 0.0, queued=False)
    told = worker_report(database).holders
    assert len(told) == 60
    assert len([each for each in told if each.stack]) == 50
    assert len((await figures(database))["holders"]) == 50


async def test_warnings_are_counted_beyond_those_that_are_remembered(database: Database) -> None:
    for number in range(95):
        database.activity.warn("leak", f"GET /a [{number:x}-f] holds a connection for {number} s")
    database.activity.warn("leak", "GET /b holds a connection")
    notices = (await figures(database))["notices"]
    assert [(each["count"], each["text"]) for each in notices] == [
        (1, "GET /b holds a connection"),
        (95, "GET /a [5e-f] holds a connection for 94 s"),
    ]


def held(database: Database, route: str, count: int, age: float) -> None:
    before = current_origin.get()
    current_origin.set(route)
    for _ in range(count):
        database.activity.acquired(Holder(time.monotonic() - age), 0.0, queued=False)
    current_origin.set(before)


async def test_routes_are_counted_over_all_and_whom_the_headline_blames_has_a_row(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late it came: the rows are the oldest only."""
    held(database, "GET /hold", 45, 29.0)
    held(database, "GET /", 10, 28.0)
    held(database, "GET /tasks", 555, 1.0)
    gauges = Gauges(out=610, idle=0, waiting=3, limit=610)
    monkeypatch.setattr(database.live, "gauges", lambda _pools: gauges)
    found = await figures(database)
    assert found["headline"]["text"].startswith("GET /tasks holds ")
    assert found["routes"] == [
        {"route": "GET /tasks", "count": 555},
        {"route": "GET /hold", "count": 45},
        {"route": "GET /", "count": 10},
    ]
    rows = found["holders"]
    (blamed,) = found["blamed"]
    assert [each["route"] for each in rows] == (["GET /hold"] * 45 + ["GET /"] * 4 + ["GET /tasks"])
    assert rows[-1]["id"] == blamed
    assert rows[-1]["stack"]  # which the others beyond the first rows come without
    assert found["holders_total"] == 610


async def test_the_slowest_statements_are_the_applications(postgres_url: str) -> None:
    async with Database(config(postgres_url)) as database:
        async with database.read_session(origin="GET /papers") as session:
            await session.execute(text("select 1"))
        await run_checks(database)
        assert database.activity.snapshot().sessions["system checks"].count > 0
        found = await figures(database)
    assert {each["origin"] for each in found["statements"]} == {"GET /papers"}


async def test_it_says_who_waits(database: Database) -> None:
    async def job(release: asyncio.Event) -> None:
        async with database.read_session(origin="a reader") as session:
            await session.connection()
            await release.wait()

    release = asyncio.Event()
    tasks = [asyncio.create_task(job(release)) for _ in range(4)]
    found = await until(database, lambda live: live["gauges"]["waiting"] == 2)
    (waiter,) = found["waiters"]
    assert (waiter["route"], waiter["count"]) == ("a reader", 2)
    assert found["headline"]["state"] == "exhausted"
    release.set()
    await asyncio.gather(*tasks)


async def test_it_says_who_waits_for_a_lock(postgres_url: str, runtime: Path) -> None:
    async with Database(config(postgres_url)) as database, serving(database):
        async with database.session() as session:
            await session.execute(text("create table papers (id int)"))
            await session.execute(text("insert into papers values (1)"))
            await session.commit()

        async def second() -> None:
            async with database.session(origin="the second") as session:
                await session.execute(text("update papers set id = 3"))

        async with database.session(origin="the first") as session:
            await session.execute(text("update papers set id = 2"))
            task = asyncio.create_task(second())
            found = await until(database, lambda live: live["blockings"])
        await task
    (blocking,) = found["blockings"]
    assert (blocking["waiting"], blocking["blocking"]) == ("the second", "the first")
    assert blocking["waiting_statement"] == "update papers set id = ?"
    assert found["headline"]["state"] == "blocked"
    assert re.fullmatch(
        r"the second has waited [\d.]+ s for the first, which is in .+\.", found["headline"]["text"]
    )
    assert found["server_error"] is None


async def test_each_stack_is_read_once_a_look(
    postgres_url: str, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop waits meanwhile; also where the server is asked too."""
    read: list[Holder] = []
    stack = Holder.stack

    def noted(self: Holder) -> Any:
        read.append(self)
        return stack(self)

    monkeypatch.setattr(Holder, "stack", noted)
    async with Database(config(postgres_url)) as database, serving(database):
        async with database.session(origin="the first") as session:
            await session.execute(text("select pg_advisory_lock(1)"))

            async def second() -> None:
                async with database.session(origin="the second") as session:
                    await session.execute(text("select pg_advisory_lock(1)"))

            task = asyncio.create_task(second())
            await until(database, lambda live: live["blockings"])
            await asyncio.sleep(live_module._VIEW_LASTS)  # so that the server is looked at again
            read.clear()
            found = await figures(database)
            assert found["blockings"]
            assert len(read) == len(set(read)) == 2
            read.clear()
            view = await database.look_at_server()
            assert len(read) == 2
            assert {one.holder.handler for one in view.connections if one.holder} == {
                "the first",
                "the second",
            }
            await session.execute(text("select pg_advisory_unlock(1)"))
        await task


async def test_who_came_after_a_look_is_added_to_it(database_url: str) -> None:
    async with Database(config(database_url)) as database, database.engine.connect():
        before = database.activity.holders(stacks=True)
        async with database.engine.connect():
            first, second = database.activity.with_newer(before)
        assert first is before[0]
        assert second.number != first.number
        assert second.stack


async def test_one_that_we_do_not_know_is_named_as_the_server_does(
    postgres_url: str, runtime: Path
) -> None:
    async with (
        Database(config(postgres_url)) as database,
        Database(config(postgres_url, name="stranger")) as stranger,
        serving(database),
    ):
        async with stranger.session() as session:
            await session.execute(text("create table papers (id int)"))
            await session.commit()
            await session.execute(text("lock table papers"))

            async def second() -> None:
                async with database.session(origin="ours") as session:
                    await session.execute(text("select from papers"))

            task = asyncio.create_task(second())
            found = await until(database, lambda live: live["blockings"])
        await task
    (blocking,) = found["blockings"]
    assert blocking["waiting"] == "ours"
    assert blocking["blocking"].startswith("stranger@")
    assert blocking["blocking_state"] == "idle in transaction"


async def test_other_workers_are_added_up(postgres_url: str, runtime: Path) -> None:
    other = WorkerReport(
        pid=7,
        gauges=Gauges(out=2, waiting=1, limit=2),
        holders=(HolderReport(id="7-1", route="GET /slow", held=42.0, pid=7),),
        routes={"GET /slow": 2},
        waiters=(Waiter(route="GET /slow", count=1, longest=3.0),),
        history=(Sample(2, Gauges(out=2)),),
        statements=(
            Statement(statement="select ?", seconds=9.0, count=3, origin="GET /slow"),
            Statement(statement="select ?, ?", seconds=0.1, count=1, origin=None),
        ),
        notices=(Notice(at=1.0, kind="leak", text="a leak", pid=7),),
    )
    third = msgspec.structs.replace(
        other,
        pid=8,
        holders=(),
        statements=(msgspec.structs.replace(other.statements[0], seconds=2.0),),
    )
    async with Database(config(postgres_url)) as database, serving(database):
        identity = f"default\0{database.config.safe_url}"
        folder = next(runtime.iterdir())
        (
            one,
            two,
            odd,
        ) = (Siblings(identity, folder) for _ in range(3))
        async with (
            one.serving(lambda: msgspec.json.encode(other)),
            two.serving(lambda: msgspec.json.encode(third)),
            odd.serving(lambda: b'{"of": "another version"}'),
        ):
            found = await figures(database)
    assert found["gauges"] == {"out": 4, "idle": 0, "waiting": 2, "limit": 6}
    assert found["waiters"] == [{"route": "GET /slow", "count": 2, "longest": 3.0}]
    assert [(each["seconds"], each["count"]) for each in found["statements"]] == [
        (9.0, 6),
        (0.1, 1),
    ]
    assert [(each["pid"], each["count"]) for each in found["notices"]] == [(7, 2)]
    assert found["history"][0]["gauges"]["out"] == 4
    assert found["routes"] == [{"route": "GET /slow", "count": 4}]
    assert found["workers_note"] == f"3 of 4 workers of this host answered; silent: {os.getpid()}."
    assert [(each["pid"], each["asked"]) for each in found["workers"]] == [
        (7, False),
        (8, False),
        (os.getpid(), True),
        (os.getpid(), False),
    ]
    assert found["headline"]["text"].startswith("GET /slow holds 1 of 4 connections")
    assert found["headline"]["also"][0].startswith(f"Worker {os.getpid()} does not answer")


async def test_a_worker_that_says_nothing_is_told_of(database: Database, runtime: Path) -> None:
    (own,) = runtime.glob("*/*.sock")
    key = own.name.partition("-")[0]
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(own.with_name(f"{key}-7-abcd.sock")))
        hanging.listen()
        found = await figures(database)
    assert found["workers_note"] == "1 of 2 workers of this host answered; silent: 7."
    assert found["headline"]["text"].startswith("Worker 7 does not answer")


async def test_two_real_workers_of_one_database_find_each_other(
    database: Database, database_url: str
) -> None:
    async with Database(config(database_url)) as other, serving(other):
        found = await figures(database)
        assert (
            found["workers_note"]
            == "All 2 workers of this host answered: the figures are their sum."
        )
        assert found["gauges"]["limit"] == 4
    found = await figures(database)
    assert found["workers_note"] == "This is the only worker on this host that uses the database."


async def test_private_databases_are_nobody_elses(runtime: Path) -> None:
    """Two processes may each have an in-memory database: these are two."""
    settings = DatabaseConfig(url="sqlite:///:memory:", environment="dev")
    async with (
        Database(settings) as one,
        serving(one),
        Database(settings) as two,
        serving(two),
    ):
        assert len((await figures(one))["workers"]) == 1


async def test_without_a_private_folder_it_shows_this_worker_alone(
    sqlite_url: str, runtime: Path
) -> None:
    (runtime / f"reviewpoint_db-{os.getuid()}").mkdir(mode=0o777)
    (runtime / f"reviewpoint_db-{os.getuid()}").chmod(0o777)
    async with Database(config(sqlite_url)) as database, serving(database):
        note = (await figures(database))["workers_note"]
    assert note.startswith("This worker alone: the others cannot be asked (")
    assert "not a folder of this user alone" in note


async def test_it_answers_without_having_been_started(sqlite_url: str) -> None:
    database = Database(config(sqlite_url))
    found = await figures(database)
    assert found["gauges"]["limit"] == 2
    assert "not started as a server" in found["workers_note"]
    assert database.existing_engine is None


async def test_of_a_pool_of_another_kind_there_is_nothing_to_show(sqlite_url: str) -> None:
    settings = config(sqlite_url, engine_options={"poolclass": NullPool})
    async with Database(settings) as database, database.session() as session:
        await session.execute(text("select 42"))
        found = await figures(database)
    assert found["gauges"]["limit"] is None
    assert found["headline"]["state"] == "calm"


async def test_the_configuration_shows_no_secret(sqlite_url: str) -> None:
    settings = DatabaseConfig(
        url="postgresql://ann:s3cret@db/papers",
        read_url="postgresql://ann:s3cret@replica/papers",
        environment="dev",
        engine_options={"connect_args": {"password": "s3cret"}},
    )
    reply = await live_figures(Database(settings))
    assert b"s3cret" not in reply.body
    shown = json.loads(reply.body)["configuration"]
    assert shown["url"].endswith("@db/papers")
    assert shown["read_url"].endswith("@replica/papers")
    assert shown["pool.size"] == settings.effective_pool.size
    assert "engine_options" not in shown


async def test_a_late_event_loop_is_news_for_a_moment(database: Database) -> None:
    assert (await figures(database))["headline"]["state"] == "calm"
    database.activity.loop_late = LoopLate(time.monotonic(), 3.0, "block (app.py:7)")
    said = (await figures(database))["headline"]["text"]
    assert said.startswith("block (app.py:7) blocked the event loop of worker ")
    # As long as health says so.
    database.activity.loop_late = LoopLate(time.monotonic() - 20, 3.0)
    assert "blocked the event loop" in (await figures(database))["headline"]["text"]
    database.activity.loop_late = LoopLate(time.monotonic() - 60, 3.0)
    assert (await figures(database))["headline"]["state"] == "calm"


async def test_an_outage_that_nobody_else_met_is_the_headline(
    own_postgres: PostgresServer, own_url: str, runtime: Path
) -> None:
    async with Database(config(own_url)) as database, serving(database):
        assert (await figures(database))["headline"]["state"] != "unreachable"
        await asyncio.to_thread(own_postgres.stop, "immediate")
        found = await until(database, lambda live: live["headline"]["state"] == "unreachable")
        words = (
            r"The database at 127\.0\.0\.1:\d+ (is unreachable|has been unreachable for [\d.]+ s): "
            r"ConnectionRefusedError: .+; nobody waits\."
        )
        assert re.fullmatch(words, found["headline"]["text"])
        assert found["workers"][0]["outage"].startswith("ConnectionRefusedError: ")
        await asyncio.to_thread(own_postgres.start)
        await until(database, lambda live: live["headline"]["state"] != "unreachable")


async def test_a_server_that_is_silent_keeps_the_page_waiting_for_a_moment_only(
    own_postgres: PostgresServer, own_url: str, runtime: Path
) -> None:
    """The check ends later, and the next answer has what it found."""
    async with Database(config(own_url, health_timeout=3.0)) as database, serving(database):
        await figures(database)
        own_postgres.freeze()
        database.last_health.at = float("-inf")
        assert (await figures(database))["headline"]["state"] != "unreachable"
        assert database.live._checks
        found = await until(database, lambda live: live["headline"]["state"] == "unreachable")
        assert " unreachable" in found["headline"]["text"]
        own_postgres.thaw()
        await until(database, lambda live: live["headline"]["state"] != "unreachable")


async def test_a_failing_check_of_the_applications_is_on_the_page(database: Database) -> None:
    async def disk() -> bool:
        return False

    database.add_check("disk", disk)
    found = await figures(database)
    assert found["headline"]["state"] == "degraded"
    assert found["headline"]["text"] == "The application's check 'disk' fails: failed."


async def test_many_pages_cost_one_health_check_in_some_seconds(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[None] = []
    health = Database.health

    async def counted(self: Database) -> Any:
        checks.append(None)
        return await health(self)

    monkeypatch.setattr(Database, "health", counted)
    for _ in range(3):
        await database.live.health()
    assert len(checks) == 1
    database.live._view = ServerView(backend="postgresql", error="no answer")
    database.last_health.at -= 2.0
    await database.live.health()  # the server had no answer for the page: what is known is doubtful
    assert len(checks) == 2


async def test_what_the_server_does_not_say_is_told(
    postgres_url: str, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(self: Database, holders: object = None) -> ServerView:
        return ServerView(backend="postgresql", error="no answer")

    monkeypatch.setattr(Database, "look_at_server", silent)
    async with Database(config(postgres_url)) as database, serving(database):

        async def job() -> None:
            async with database.session() as session:
                await session.execute(text("select pg_sleep(60)"))

        task = asyncio.create_task(job())
        found = await until(database, lambda live: live["server_error"])
        assert found["server_error"] == "no answer"
        words = "The server did not say who waits for whom: no answer."
        assert found["headline"]["state"] == "degraded"
        assert words in (found["headline"]["text"], *found["headline"]["also"])
        database.activity.reachability.failed("refused")
        assert (await figures(database))["server_error"] is None  # it is not even asked
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_another_worker_that_has_not_heard_of_the_end_is_not_believed(
    database: Database, database_url: str, runtime: Path
) -> None:
    async with Database(config(database_url)) as other, serving(other):
        other.activity.reachability.failed("refused")
        found = await figures(database)
        assert found["headline"]["state"] != "unreachable"  # this one has just had an answer
        other.activity.reachability.failed("refused")
        found = await figures(database)
        assert found["headline"]["state"] == "unreachable"  # the other one asked after that


async def test_statements_that_fail_are_the_headline(database: Database) -> None:
    for _ in range(6):
        with pytest.raises(SQLAlchemyError):
            async with database.session(origin="GET /missing get_missing [abc]") as session:
                await session.execute(text("select * from nowhere"))
    (code,) = database.activity.snapshot().statement_errors
    found = await figures(database)
    assert found["headline"]["state"] == "degraded"
    words = f"0.6 statements a second fail with {code}, all in GET /missing"
    assert re.match(rf"{words}(\.$|: has the schema been created\? )", found["headline"]["text"])


async def test_many_pages_cost_the_server_one_look_a_second(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []
    look = Database.look_at_server

    async def counted(self: Database, holders: Any) -> Any:
        looks.append(None)
        return await look(self, holders)

    monkeypatch.setattr(Database, "look_at_server", counted)
    first = await database.live.server()
    assert await database.live.server() is first
    assert len(looks) == 1


async def test_a_second_loop_of_the_same_process_is_no_second_worker(database: Database) -> None:
    async def look() -> Any:
        async with serving(database):
            return await figures(database)

    async with database.session() as session:
        await session.execute(text("select 1"))
        second = await asyncio.to_thread(asyncio.run, look())
        first = await figures(database)
    for found in (first, second):
        assert found["gauges"]["out"] == 1

        assert len(found["workers"]) == 1
