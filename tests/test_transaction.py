"""UnitOfWork, the certain end of a session, and functions that wait for COMMIT."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, ClassVar

import pytest
from loguru import logger
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session as SyncSession

from reviewpoint_db.after_commit import after_commit, until_run
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ConfigurationError, SessionClosedError
from tests.support.garbage import garbage
from tests.support.logs import logged
from tests.support.notes import held, metadata, notes, stored, write, write_orphan
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from reviewpoint_db.transaction import CommitMode


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(url=database_url, pool=PoolConfig(timeout=2), query_timeout=2)
    async with Database(config, metadata=metadata, create_all=True) as database:
        yield database


# -- UnitOfWork -----------------------------------------------------------------------------------


async def test_sessions_open_at_first_need_and_once(database: Database) -> None:
    unit = database.unit_of_work()
    before = unit.opened
    assert unit.session is unit.session
    assert unit.read_session is unit.read_session
    assert (before, unit.opened, unit.dirty) == (False, True, False)
    await unit.release()


@pytest.mark.parametrize("commit", ["auto_commit", "auto", True, None])
def test_a_typo_in_who_commits_is_refused(database: Database, commit: CommitMode) -> None:
    """It would leave everything uncommitted, behind a success."""
    with pytest.raises(ConfigurationError, match='use one of "manual", "autocommit"'):
        database.unit_of_work(commit=commit)


async def test_it_commits_a_success_and_rolls_back_a_failure(database: Database) -> None:
    for succeeded in (True, False):
        unit = database.unit_of_work(commit="autocommit")
        await write(unit.session, str(succeeded))
        before = unit.dirty
        await unit.finish(succeeded=succeeded)
        assert (before, unit.dirty) == (True, False)
        assert unit.succeeded is succeeded
        await unit.finish(succeeded=True)  # nothing is left to commit
        await unit.release()
    assert await stored(database) == ["True"]


async def test_in_manual_mode_the_caller_commits(database: Database) -> None:
    unit = database.unit_of_work()
    await write(unit.session, "kept")
    await unit.session.commit()
    await write(unit.session, "lost")
    await unit.finish(succeeded=True)
    with logged() as lines:
        await unit.release()
    assert [line for line in lines if line.startswith("WARNING|unknown answered with success")]
    assert await stored(database) == ["kept"]


async def test_nothing_is_said_of_changes_that_a_failure_left(database: Database) -> None:
    with logged() as lines:
        for succeeded in (False, True):
            unit = database.unit_of_work()
            await unit.session.execute(select(notes))
            if not succeeded:
                await write(unit.session, "lost")
            await unit.finish(succeeded=succeeded)
            await unit.release()
    assert lines == []


async def test_a_unit_without_sessions_ends_for_nothing(database: Database) -> None:
    unit = database.unit_of_work(commit="autocommit")
    await unit.finish(succeeded=True)
    await unit.release()
    await unit.release()
    with pytest.raises(SessionClosedError, match="'unknown' is over"):
        _ = unit.session


async def test_only_the_read_session_may_be_used(database: Database) -> None:
    unit = database.unit_of_work()
    await unit.read_session.execute(select(notes))
    await unit.release()
    with pytest.raises(SessionClosedError):
        await unit.read_session.execute(select(notes))
    assert held(database) == 0


# -- the end of a session -------------------------------------------------------------------------


@pytest.fixture
async def relayed(postgres_url: str) -> AsyncIterator[tuple[Database, Relay]]:
    with Relay.to(postgres_url) as relay:
        config = DatabaseConfig(url=relay.url(postgres_url), query_timeout=1, connect_timeout=1)
        async with Database(config, metadata=metadata, create_all=True) as database:
            yield database, relay


async def test_a_rollback_that_is_not_answered_gives_the_connection_back(
    relayed: tuple[Database, Relay],
) -> None:
    database, relay = relayed
    relay.at("ROLLBACK;", "hold answer")
    with logged() as lines:
        async with database.session() as session:
            await write(session, "lost")
    assert held(database) == 0
    assert not [line for line in lines if "lost" in line.partition("|")[2][:20]]
    assert await stored(database) == []


async def test_an_end_that_is_cancelled_is_completed(relayed: tuple[Database, Relay]) -> None:
    database, relay = relayed
    session = database.open_session()
    await write(session, "lost")
    trigger = relay.at("ROLLBACK;", "hold answer")
    ending = asyncio.create_task(database.end(session))
    async with asyncio.timeout(5):
        while not trigger.fired:
            await asyncio.sleep(0.005)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert held(database) == 0
    assert await stored(database) == []


class _Slow(AsyncSession):
    """An application's session class, whose close takes its time."""

    gate: ClassVar[asyncio.Event]
    closing: ClassVar[asyncio.Event]

    async def close(self) -> None:
        self.closing.set()
        await self.gate.wait()
        await super().close()


async def test_an_end_that_is_cancelled_twice_is_completed_all_the_same(database_url: str) -> None:
    _Slow.gate, _Slow.closing = asyncio.Event(), asyncio.Event()
    config = DatabaseConfig(url=database_url, session_class=_Slow)
    async with Database(config, metadata=metadata, create_all=True) as database:
        session = database.open_session()
        await write(session, "lost")
        ending = asyncio.create_task(database.end(session))
        async with asyncio.timeout(5):
            for _ in range(2):
                await _Slow.closing.wait()
                _Slow.closing.clear()
                ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        assert held(database) == 1
        _Slow.gate.set()
        await asyncio.wait(database._closings, timeout=5)
        assert held(database) == 0


class _Lingering(_Slow):
    """Returns its connection, and then takes its time."""

    async def close(self) -> None:
        await AsyncSession.close(self)
        await super().close()


async def test_a_stop_waits_for_the_end_of_sessions(sqlite_url: str) -> None:
    _Slow.gate, _Slow.closing = asyncio.Event(), asyncio.Event()
    config = DatabaseConfig(url=sqlite_url, session_class=_Lingering)
    database = Database(config, metadata=metadata, create_all=True)
    await database.start()
    session = database.open_session()
    await write(session, "lost")
    ending = asyncio.create_task(database.end(session))
    async with asyncio.timeout(5):
        await _Slow.closing.wait()
        ending.cancel()
        stopping = asyncio.create_task(database.stop())
        while not database._closings:
            await asyncio.sleep(0)
        assert not stopping.done()
        _Slow.gate.set()
        await stopping
    assert not database._closings
    with pytest.raises(asyncio.CancelledError):
        await ending


async def test_a_session_that_another_task_still_uses_is_ended_for_certain(
    database: Database,
) -> None:
    session = database.open_session()
    # Two tasks that begin at once: the second one gets an error, the first goes on.
    tasks = [asyncio.create_task(session.execute(text("select 1"))) for _ in range(2)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await database.end(session)
    await asyncio.wait(tasks)
    assert [task.exception() for task in tasks]
    async with asyncio.timeout(5):
        while held(database):
            await asyncio.sleep(0.005)
    async with database.session() as other:
        assert await other.scalar(text("select 1")) == 1


async def test_a_session_in_the_middle_of_a_query_is_cut(postgres_url: str) -> None:
    config = DatabaseConfig(url=postgres_url, query_timeout=10)
    async with Database(config) as database:
        session = database.open_session()
        await session.execute(text("select 1"))
        query = asyncio.create_task(session.execute(text("select pg_sleep(10)")))
        await asyncio.sleep(0)
        with logged("WARNING") as lines:
            await database.end(session)
        await asyncio.wait([query], timeout=5)
        assert query.exception() is not None
        assert [line for line in lines if "could not be closed in order" in line]
        assert held(database) == 0


# -- after_commit ---------------------------------------------------------------------------------


async def test_functions_run_once_the_data_is_stored_and_only_once(database: Database) -> None:
    seen: list[object] = []

    async def look() -> None:
        seen.append(await stored(database))

    async with database.session() as session:
        after_commit(session, look)
        after_commit(session, lambda: seen.append("plain"))
        await write(session, "note")
        assert seen == []
        await session.commit()
        assert seen == [["note"], "plain"]
        await write(session, "other")
        await session.commit()
    assert seen == [["note"], "plain"]


async def test_functions_registered_before_anything_else_run_at_commit(database: Database) -> None:
    seen: list[str] = []
    async with database.session() as session:
        after_commit(session, lambda: seen.append("run"))
        await session.commit()
    assert seen == ["run"]


async def test_a_rollback_forgets_them(database: Database) -> None:
    seen: list[str] = []
    async with database.session() as session:
        await write(session, "note")
        after_commit(session, lambda: seen.append("never"))
        await session.rollback()
        await write(session, "note")
        await session.commit()
    assert seen == []


async def test_a_failed_commit_forgets_them(database: Database) -> None:
    seen: list[str] = []
    async with database.session() as session:
        await write_orphan(session)
        after_commit(session, lambda: seen.append("never"))
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.commit()
    assert seen == []


async def test_a_savepoint_that_is_rolled_back_forgets_those_inside_of_it(
    database: Database,
) -> None:
    seen: list[str] = []
    async with database.session() as session:
        await write(session, "note")
        after_commit(session, lambda: seen.append("outside"))
        outer = await session.begin_nested()
        async with session.begin_nested():
            after_commit(session, lambda: seen.append("released, then rolled back"))
            await write(session, "inner")
        after_commit(session, lambda: seen.append("rolled back"))
        await outer.rollback()
        async with session.begin_nested():
            after_commit(session, lambda: seen.append("released"))
            async with session.begin_nested():
                after_commit(session, lambda: seen.append("released twice"))
        deep = await session.begin_nested()
        await session.begin_nested()
        after_commit(session, lambda: seen.append("rolled back from further out"))
        await deep.rollback()
        await session.commit()
    assert seen == ["outside", "released", "released twice"]
    assert await stored(database) == ["note"]


@pytest.mark.parametrize("commit", ["manual", "autocommit"])
async def test_in_a_request_it_runs_without_a_transaction_too(
    database: Database, commit: CommitMode
) -> None:
    """What it tells of was committed by the handler already."""
    seen: list[str] = []
    unit = database.unit_of_work(commit=commit)
    await write(unit.session, "note")
    await unit.session.commit()
    after_commit(unit.session, lambda: seen.append("run"))
    if commit == "manual":
        await unit.session.commit()
    await unit.finish(succeeded=True)
    assert seen == ["run"]
    await unit.release()
    assert seen == ["run"]


@pytest.mark.parametrize("how", ["rollback", "reset", "close"])
async def test_what_ends_a_session_without_a_transaction_forgets_it(
    database: Database, how: str
) -> None:
    seen: list[str] = []
    async with database.session() as session:
        after_commit(session, lambda: seen.append("never"))
        await getattr(session, how)()
        if how != "close":
            await write(session, "note")
            await session.commit()
    assert seen == []


async def test_a_session_that_the_handler_closed_has_nothing_to_commit(database: Database) -> None:
    unit = database.unit_of_work(commit="autocommit")
    await write(unit.session, "note")
    after_commit(unit.session, list)
    await unit.session.commit()
    await unit.session.close()
    await unit.finish(succeeded=True)
    await unit.release()
    assert await stored(database) == ["note"]


async def test_a_log_that_fails_costs_no_connection(database: Database) -> None:
    unit = database.unit_of_work()
    await write(unit.session, "lost")
    unit.status = 200

    def fail(_: object) -> None:
        raise LookupError

    sink = logger.add(fail, level="WARNING", catch=False)
    try:
        with logged(), pytest.raises(LookupError):
            await unit.release()
    finally:
        logger.remove(sink)
    assert held(database) == 0


async def test_a_function_that_fails_is_logged_and_the_others_run(database: Database) -> None:
    seen: list[str] = []

    def fails() -> None:
        raise ValueError("secret")

    async with database.session() as session:
        await write(session, "note")
        after_commit(session, fails)
        after_commit(session, lambda: seen.append("run"))
        with logged() as lines:
            await session.commit()
    assert seen == ["run"]
    assert [line for line in lines if line.startswith("ERROR|A function after COMMIT failed")]
    assert await stored(database) == ["note"]


async def test_a_function_that_is_cancelled_or_hangs_skips_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[after_commit.__module__], "_LIMIT", 0.05)
    seen: list[str] = []

    async def is_cancelled() -> None:
        raise asyncio.CancelledError

    async def hangs() -> None:
        await asyncio.Event().wait()

    async with database.session() as session:
        await write(session, "note")
        after_commit(session, is_cancelled)
        after_commit(session, hangs)
        after_commit(session, lambda: seen.append("run"))
        with logged("ERROR") as lines:
            await session.commit()
    assert seen == ["run"]
    assert "A function after COMMIT failed: CancelledError" in lines[0]
    assert "A function after COMMIT failed: TimeoutError" in lines[1]


async def test_a_request_that_is_cancelled_after_its_commit_skips_no_function(
    database: Database,
) -> None:
    began, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        began.set()
        await go_on.wait()

    async def request() -> None:
        async with database.session() as session:
            await write(session, "note")
            after_commit(session, slow)
            after_commit(session, ended.set)
            await session.commit()

    task = asyncio.create_task(request())
    async with asyncio.timeout(10):
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not ended.is_set()
        go_on.set()
        await ended.wait()
    assert await stored(database) == ["note"]


async def test_the_stop_waits_for_no_functions_of_another_database(
    database: Database, tmp_path: Path
) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        began.set()
        await go_on.wait()

    async def request() -> None:
        async with database.session() as session:
            after_commit(session, slow)
            await session.commit()

    task = asyncio.create_task(request())
    async with asyncio.timeout(5):  # the stop would wait for ten
        await began.wait()
        async with Database(DatabaseConfig(url=f"sqlite:///{tmp_path}/other.sqlite3")):
            pass
        go_on.set()
        await task


async def test_functions_after_commit_leave_no_session_to_the_garbage_collector(
    database: Database,
) -> None:
    with garbage(SyncSession) as left:
        for _ in range(3):
            async with database.session() as session:
                await session.execute(text("select 1"))
                after_commit(session, lambda: None)
                await session.commit()
        del session
    assert left == []


async def test_functions_after_the_commit_of_somebody_elses_session_run_too(
    sqlite_url: str,
) -> None:
    seen: list[str] = []
    engine = create_async_engine(sqlite_url.replace("://", "+aiosqlite://"))
    async with AsyncSession(engine) as session:
        await session.execute(text("select 1"))
        after_commit(session, lambda: seen.append("run"))
        await session.commit()
    await engine.dispose()
    assert seen == ["run"]


async def test_the_stop_waits_for_functions_whose_request_was_cancelled(sqlite_url: str) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    counted: list[int] = []
    own = Database(DatabaseConfig(url=sqlite_url, environment="test"))
    await own.start()

    async def slow() -> None:
        began.set()
        await go_on.wait()
        async with own.session() as session:
            counted.append(len((await session.execute(text("select 1"))).all()))
        await until_run(own._after_commits, 10)  # it does not wait for itself

    async def request() -> None:
        async with own.session() as session:
            after_commit(session, slow)
            await session.commit()

    task = asyncio.create_task(request())
    async with asyncio.timeout(10):
        await began.wait()
        task.cancel()
        await asyncio.wait([task])
        stopping = asyncio.create_task(own.stop())
        await asyncio.sleep(0)
        assert not stopping.done()
        go_on.set()
        await stopping
    assert counted == [1]


def test_functions_after_commit_end_with_their_loop(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reviewpoint_db.database._DRAIN_TIMEOUT", 0.05)
    seen: list[str] = []

    async def slow() -> None:
        seen.append("begun")
        await asyncio.Event().wait()

    async def request(database: Database) -> None:
        async with database.session() as session:
            after_commit(session, slow)
            after_commit(session, lambda: seen.append("never"))
            await session.commit()

    async def main() -> None:
        async with Database(DatabaseConfig(url=sqlite_url, environment="test")) as database:
            task = asyncio.create_task(request(database))
            async with asyncio.timeout(10):
                while not seen:
                    await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(main())
    assert seen == ["begun"]
