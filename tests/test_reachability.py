"""An outage has two lines in the log, whoever meets it: when it begins, with its cause, and when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from reviewpoint_db import watch as watch_module
from reviewpoint_db.activity import Activity, Event
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import DatabaseUnavailableError
from reviewpoint_db.reachability import Unreachable
from tests.support.logs import logged
from tests.support.pools import until
from tests.support.postgres import PostgresServer


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Database]:
    settings.setdefault("environment", "test")  # where no thread watches
    async with Database(DatabaseConfig(url=url, **settings)) as database:
        yield database


def turns(lines: list[str]) -> list[str]:
    """Those of the lines that tell of a turn."""
    return [line for line in lines if "unreachable" in line or "answers again" in line]


def heard(database: Database) -> list[tuple[Event, dict[str, Any]]]:
    events: list[tuple[Event, dict[str, Any]]] = []
    database.activity.subscribe(lambda event, data: events.append((event, data)))
    return events


def cause_of(database: Database) -> str:
    failure = database.activity.reachability.failure
    assert failure is not None
    return failure.cause


async def served(database: Database) -> None:
    """Asks until it is: the pool's next attempt may be more than its timeout away."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with database.session() as session:
                    await session.execute(text("select 1"))
                    return
            except DatabaseUnavailableError:
                pass


async def test_an_outage_that_requests_meet_has_two_lines(
    own_postgres: PostgresServer, own_url: str
) -> None:
    async with opened(own_url, pool=PoolConfig(timeout=0.5)) as database:
        events = heard(database)
        own_postgres.stop("immediate")
        with logged() as lines:
            for _ in range(3):
                with pytest.raises(DatabaseUnavailableError):
                    async with database.session() as session:
                        await session.execute(text("select 1"))
            assert "refused" in cause_of(database).lower()
            own_postgres.start()
            await served(database)
        assert database.activity.reachability.failure is None
        begin, end = turns(lines)
        assert begin.startswith("WARNING|Database 'default' is unreachable: ConnectionRefusedError")
        assert end.startswith("INFO|Database 'default' answers again after ")
        assert database.activity.snapshot().warnings == {"unreachable": 1}
        assert [event for event, _ in events] == ["db.unreachable", "db.reachable"]
        assert "refused" in events[0][1]["message"].lower()
        assert events[1][1]["seconds"] > 0


async def test_an_outage_that_only_health_checks_meet_has_two_lines_too(
    own_postgres: PostgresServer, own_url: str
) -> None:
    """As when readiness has taken the process out, so that no request comes any more."""
    async with opened(own_url) as database:
        assert (await database.health()).status == "healthy"
        own_postgres.stop("immediate")
        with logged() as lines:
            for _ in range(3):
                assert (await database.health()).cause == "unreachable"
            own_postgres.start()
            for _ in range(3):
                assert (await database.health()).status == "healthy"
        begin, end = turns(lines)
        assert begin.startswith("WARNING|Database 'default' is unreachable: ConnectionRefusedError")
        assert end.startswith("INFO|Database 'default' answers again after ")
        assert database.activity.snapshot().connection_failures == 3


async def test_a_refused_password_is_told_with_its_code_and_without_itself(
    own_postgres: PostgresServer, own_url: str
) -> None:
    own_postgres.psql("create role clerk login password 'first'")
    url = own_postgres.url(own_url.rpartition("/")[2], user="clerk", password="first")
    try:
        async with opened(url) as database:
            own_postgres.psql("alter role clerk password 'second'")
            with logged() as lines:
                for _ in range(2):
                    with pytest.raises(SQLAlchemyError):
                        async with database.session() as session:
                            await session.execute(text("select 1"))
            (line,) = turns(lines)
            assert '[28P01]: password authentication failed for user "clerk"' in line
            assert "first" not in line
            # Nobody waits any more, and it is still known.
            assert "28P01" in cause_of(database)
            own_postgres.psql("alter role clerk password 'first'")
            await database.health()
            assert database.activity.reachability.failure is None
    finally:
        own_postgres.psql("drop role clerk")


async def test_a_server_that_is_there_and_full_is_not_unreachable_to_a_health_check(
    own_postgres: PostgresServer,
) -> None:
    own_postgres.psql("create role plain login password 'plain'")
    own_postgres.create_database("crowd")
    own_postgres.psql("grant all on schema public to plain", "crowd")
    own_postgres.psql("alter role plain connection limit 1")
    url = own_postgres.url("crowd", user="plain", password="plain")
    try:
        pool = PoolConfig(size=1, max_overflow=0)
        async with opened(url, pool=pool) as database, database.engine.connect():
            assert (await database.health()).cause == "saturated"
            assert database.activity.reachability.failure is None
            assert database.activity.connection_failures == 0
    finally:
        own_postgres.psql("drop owned by plain; drop role plain", "crowd")


def test_what_a_replica_refuses_says_nothing_of_the_primary() -> None:
    activity = Activity("papers")
    activity.connection_failed("refused", to_replica=True)
    assert activity.reachability.failure is None
    activity.connection_failed("refused")
    activity.connection_opened(0.1, to_replica=True)
    assert activity.reachability.failure is not None


async def test_a_replica_that_is_dead_is_no_outage(
    postgres_url: str, own_postgres: PostgresServer, own_url: str
) -> None:
    """Its pool records in the same activity."""
    async with opened(postgres_url, read_url=own_url) as database:
        assert database.replicas is not None
        engine = database.replicas.hosts[0].engines.current()
        own_postgres.stop("immediate")
        pool: Any = engine.pool
        pool._timeout = 0.3
        with pytest.raises(DatabaseUnavailableError):
            async with engine.connect():
                pass
        assert database.activity.connection_failures > 0
        assert database.activity.reachability.failure is None
        own_postgres.start()


async def test_the_first_failure_says_since_when_and_the_last_one_why() -> None:
    activity = Activity("papers")
    before = time.monotonic()
    activity.reachability.failed("refused")
    first = activity.reachability.failure
    activity.reachability.failed("no answer")
    second = activity.reachability.failure
    assert first is not None
    assert second == Unreachable("no answer", first.since, second.last if second else 0)
    assert before <= first.since <= second.last
    activity.reachability.answered()
    activity.reachability.answered()
    assert activity.reachability.failure is None


async def test_a_check_of_the_application_is_logged_when_it_turns(sqlite_url: str) -> None:
    passes = [False]

    async def disk() -> bool:
        return passes[0]

    async def queue() -> None:
        if not passes[0]:
            msg = "secret"
            raise ValueError(msg)

    async with opened(sqlite_url) as database:
        assert database.last_health.age == float("inf")
        database.add_check("disk", disk)
        database.add_check("queue", queue)
        with logged() as lines:
            await database.health()
            report = await database.health()
            passes[0] = True
            await database.health()
            await database.health()
        assert [line for line in lines if "check" in line] == [
            "WARNING|The check 'disk' of database 'default' fails: failed\n",
            "WARNING|The check 'queue' of database 'default' fails: ValueError: its text is withheld, since it may hold values\n",
            "INFO|The check 'disk' of database 'default' passes again\n",
            "INFO|The check 'queue' of database 'default' passes again\n",
        ]
        assert [check.name for check in report.failing] == ["disk", "queue"]
        assert database.activity.reachability.failure is None
        assert database.last_health.report is not report
        assert database.last_health.age < 60


async def test_it_is_noticed_where_nobody_asks_that_a_database_answers_again(
    own_postgres: PostgresServer, own_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_AGAIN", 0.2)
    monkeypatch.setattr(watch_module, "_ROUND", 0.1)
    async with opened(own_url, environment="dev") as database:
        own_postgres.stop("immediate")
        await database.health()
        with logged() as lines:
            own_postgres.start()
            await until(lambda: database.activity.reachability.failure is None)
        assert len(turns(lines)) == 1
        own_postgres.stop("immediate")
        await database.health()
        await until(lambda: database._tasks)  # stopping while it is tried again
        database.begin_draining()
        await until(lambda: not database._tasks)
        database._try_again()
        assert not database._tasks
    own_postgres.start()


async def test_nothing_is_tried_again_that_was_tried_just_now(sqlite_url: str) -> None:
    tried: list[None] = []
    activity = Activity("papers")
    watch = watch_module.Watch(
        activity, leak_threshold=30, idle_threshold=30, try_again=lambda: tried.append(None)
    )
    watch.start()
    activity.reachability.failed("refused")
    watch.look_at_database()
    await asyncio.sleep(0)
    assert tried == []
    activity.reachability.failure = Unreachable("refused", 0.0, float("-inf"))
    watch.look_at_database()
    await until(lambda: tried)
    watch.stop()


def test_a_forked_child_waits_for_no_thread_of_its_parent() -> None:
    activity = Activity("papers")
    with activity.reachability._lock:  # as one of those has it that a fork does not copy
        activity.reachability.forget_parent()
        activity.reachability.failed("refused")
    assert activity.reachability.failure is not None
