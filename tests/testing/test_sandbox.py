"""What the sandbox promises, and what it says where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.testing.conftest import Project

RULES = """
import asyncio

import httpx
import pytest
from litestar.testing import AsyncTestClient
from sqlalchemy import delete, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from reviewpoint_db import Database
from reviewpoint_db.testing import SandboxError
from tests.support.apps import add, litestar_app, texts
from tests.support.notes import notes, write, write_orphan


@pytest.fixture
async def database(db_sandbox):
    async with Database() as database:
        yield database


@pytest.fixture
async def http(db_session):
    transport = httpx.ASGITransport(litestar_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


async def test_a_deferred_constraint_fails_at_the_handlers_commit(http, db_session):
    assert (await http.post("/notes/orphan")).status_code == 409
    assert await texts(db_session) == []
    assert (await http.post("/notes/one")).status_code == 201


async def test_a_statement_that_fails_undoes_only_its_own_transaction(http, db_session):
    assert (await http.post("/notes/one")).status_code == 201
    assert (await http.post("/notes/one")).status_code == 409
    assert (await http.post("/notes/two")).json() == ["one", "two"]


async def test_the_test_s_session_survives_a_statement_that_fails(db_session):
    await write(db_session, "one")
    with pytest.raises(IntegrityError):
        async with db_session.begin_nested():
            await write(db_session, "one")
    assert await texts(db_session) == ["one"]


async def test_what_is_rolled_back_is_gone(database, db_session):
    async with database.session() as session:
        await write(session, "one")
        await session.rollback()
        await add(session, "two")
    await add(db_session, "three")
    await write(db_session, "four")
    await db_session.rollback()
    assert await texts(db_session) == ["three", "two"]


async def test_savepoints_of_the_application_nest(database, db_session):
    async with database.session() as session:
        await write(session, "one")
        async with session.begin_nested():
            await write(session, "two")
        nested = await session.begin_nested()
        await write(session, "three")
        await nested.rollback()
        await session.commit()
    assert await texts(db_session) == ["one", "two"]


async def test_applications_see_what_the_test_has_not_committed(http, db_session):
    await write(db_session, "one")
    assert (await http.get("/notes")).json() == ["one"]
    assert (await http.post("/notes/two")).json() == ["one", "two"]
    assert await texts(db_session) == ["one", "two"]


async def test_a_session_that_only_reads_is_rolled_back_without_harm(http, db_session):
    assert await texts(db_session) == []
    assert (await http.post("/notes/one")).status_code == 201
    await db_session.rollback()
    assert await texts(db_session) == ["one"]


async def test_a_rollback_under_a_commit_is_refused(http, db_session):
    await write(db_session, "one")
    assert (await http.post("/notes/two")).status_code == 201
    with pytest.raises(SandboxError, match="Commit the session before"):
        await db_session.rollback()


async def test_a_rollback_to_a_savepoint_under_a_commit_is_refused(http, db_session):
    nested = await db_session.begin_nested()
    await write(db_session, "one")
    assert (await http.post("/notes/two")).status_code == 201
    with pytest.raises(SandboxError, match="Commit the session before"):
        await nested.rollback()


async def test_a_rollback_to_a_savepoint_without_changes_undoes_no_commit(http, db_session):
    await write(db_session, "one")
    nested = await db_session.begin_nested()
    assert await texts(db_session) == ["one"]
    assert (await http.post("/notes/two")).status_code == 201
    await nested.rollback()
    nested = await db_session.begin_nested()
    await write(db_session, "three")
    await nested.rollback()
    assert await texts(db_session) == ["one", "two"]


async def test_sessions_that_only_read_are_rolled_back_without_harm(database, db_session):
    async with database.session() as outer, database.session() as inner:
        await outer.execute(text("/* a comment */ WITH one AS (SELECT 1) SELECT * FROM one"))
        assert await texts(inner) == []
        await write(outer, "one")
        await inner.rollback()
        await outer.commit()
    async with database.session() as outer, database.session() as inner:
        assert await texts(outer) == ["one"]
        await add(inner, "two")
        await outer.rollback()
    assert await texts(db_session) == ["one", "two"]


async def test_savepoints_of_two_sessions_may_have_one_name(database, db_session):
    async with database.session() as outer, database.session() as inner:
        await write(outer, "one")
        nested = await outer.begin_nested()
        assert await texts(outer) == ["one"]  # which sets the savepoint
        await write(inner, "two")
        async with inner.begin_nested():
            await write(inner, "three")
        await inner.begin_nested()
        await write(inner, "undone")
        await nested.rollback()
        with pytest.raises(SandboxError, match="was undone"):
            await write(inner, "four")
        await outer.commit()
    assert await texts(db_session) == ["one"]


async def test_a_savepoint_is_released_below_another_transaction(database, db_session):
    async with database.session() as outer, database.session() as inner:
        async with outer.begin_nested():
            await write(outer, "one")
            await write(inner, "two")
        with pytest.raises(SandboxError, match="has no savepoint missing"):
            await outer.execute(text("RELEASE SAVEPOINT missing"))
        await inner.commit()
        await outer.commit()
    assert await texts(db_session) == ["one", "two"]


async def test_a_test_s_commit_below_an_open_transaction_keeps_both(database, db_session):
    await write(db_session, "one")
    async with database.session() as session:
        await write(session, "two")
        await db_session.commit()
        await session.commit()
    assert await texts(db_session) == ["one", "two"]


async def test_one_task_may_have_several_transactions(database, db_session):
    async with database.session() as outer, database.session() as inner:
        await write(outer, "one")
        await write(inner, "two")
        await outer.commit()
        await inner.commit()
    assert await texts(db_session) == ["one", "two"]


async def test_a_rollback_below_another_transaction_of_the_task_undoes_that_too(database):
    async with database.session() as outer, database.session() as inner:
        await write(outer, "one")
        await write(inner, "two")
        await outer.rollback()
        with pytest.raises(SandboxError, match="was undone"):
            await write(inner, "three")
        with pytest.raises(SandboxError, match="was undone"):
            await inner.commit()


async def test_read_sessions_read_and_a_failing_one_does_no_harm(database, db_session):
    await add(db_session, "one")
    async with database.read_session() as session:
        assert await texts(session) == ["one"]
        with pytest.raises(DBAPIError):
            await session.execute(text("SELECT * FROM missing"))
        assert await texts(session) == ["one"]
        stream = await session.stream_scalars(notes.select())
        assert len([row async for row in stream]) == 1


async def test_a_stream_and_many_rows(database):
    async with database.session() as session:
        await session.execute(insert(notes), [{"text": str(n)} for n in range(120)])
        stream = await session.stream(notes.select())
        assert len([row async for row in stream]) == 120
        await session.commit()


async def test_a_request_that_waits_too_long_is_told_for_whom(database):
    released = asyncio.Event()

    async def hold():
        async with database.session(origin="the holder") as session:
            await write(session, "one")
            entered.set()
            await released.wait()

    entered = asyncio.Event()
    holder = asyncio.create_task(hold())
    await entered.wait()
    async with database.session(origin="the waiter") as session:
        with pytest.raises(SandboxError, match="the waiter waited .* the holder has"):
            await write(session, "two")
    released.set()
    await holder


async def test_a_cancelled_waiter_leaves_the_turn_to_the_next(database, db_session):
    entered, released = asyncio.Event(), asyncio.Event()

    async def hold():
        async with database.session() as session:
            await write(session, "one")
            entered.set()
            await released.wait()
            await session.commit()

    async def work(name):
        async with database.session() as session:
            await add(session, name)

    tasks = [asyncio.create_task(hold())]
    await entered.wait()
    tasks += [asyncio.create_task(work(name)) for name in ("two", "three")]
    await asyncio.sleep(0.02)
    tasks[1].cancel()
    await asyncio.wait(tasks[1:2])
    released.set()
    await asyncio.wait(tasks)
    assert await texts(db_session) == ["one", "three"]


async def test_what_a_transaction_starts_and_waits_for_is_in_its_turn(database, db_session):
    async def work(name):
        async with database.session() as session:
            await add(session, name)

    async with database.session() as session:
        await write(session, "one")
        await asyncio.create_task(work("two"))
        await session.commit()
    assert await texts(db_session) == ["one", "two"]


async def test_a_cancelled_transaction_is_undone(database, db_session):
    entered = asyncio.Event()

    async def work():
        async with database.session() as session:
            await write(session, "one")
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])
    assert await texts(db_session) == []
    assert database.activity.holders() == ()


async def test_health_answers_beside_an_open_transaction(database):
    async with database.session() as session:
        await write(session, "one")
        report = await asyncio.create_task(database.health())
    assert report.status == "healthy"
"""


def test_the_rules_of_transactions_hold(project: Project) -> None:
    project.passes(RULES, "-o", "db_turn_timeout=0.3", count=23)


FAILURES = """
import asyncio

import asyncpg
import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from reviewpoint_db import Database
from tests.support.apps import add, litestar_app, texts
from tests.support.notes import write


@pytest.fixture
async def database(db_sandbox):
    async with Database() as database:
        yield database


@pytest.fixture
async def driver(database):
    async with database.engine.connect() as connection:
        yield (await connection.get_raw_connection()).driver_connection


async def fail(session):
    with pytest.raises(IntegrityError):
        await session.execute(text("INSERT INTO notes (text) VALUES ('a'), ('a')"))


async def is_aborted(session):
    with pytest.raises(DBAPIError, match="current transaction is aborted"):
        await texts(session)
    return True


async def test_others_go_on_and_it_alone_answers_that_it_failed(database, db_session):
    async with database.session() as failed, database.session() as other:
        await write(failed, "one")
        await fail(failed)
        await add(other, "two")
        assert await texts(db_session) == ["two"]
        assert await is_aborted(failed)
        assert await is_aborted(failed)
        await failed.rollback()
        await add(failed, "three")
    assert await texts(db_session) == ["three", "two"]


async def test_in_a_savepoint_the_rest_goes_on(database, db_session):
    async with database.session() as failed, database.session() as other:
        await write(failed, "one")
        nested = await failed.begin_nested()
        await write(failed, "undone")
        await fail(failed)
        await add(other, "two")
        assert await is_aborted(failed)
        await nested.rollback()
        await add(failed, "three")
    assert await texts(db_session) == ["one", "three", "two"]


async def test_a_failure_on_top_of_a_commit_leaves_that(database, db_session):
    async with database.session() as failed, database.session() as other:
        assert await texts(failed) == []
        await add(other, "one")
        await fail(failed)
        assert await is_aborted(failed)
    assert await texts(db_session) == ["one"]


async def test_a_failure_below_another_transaction_leaves_that(database, db_session):
    async with database.session() as failed, database.session() as other:
        assert await texts(failed) == []
        await write(other, "one")
        await fail(failed)
        assert await is_aborted(failed)
        await other.commit()
    assert await texts(db_session) == ["one"]


async def test_a_commit_after_a_failure_stores_nothing(driver, db_session):
    transaction = driver.transaction()
    await transaction.start()
    await driver.execute("INSERT INTO notes (text) VALUES ('one')")
    with pytest.raises(asyncpg.UniqueViolationError):
        await driver.execute("INSERT INTO notes (text) VALUES ('one')")
    await transaction.commit()
    assert await texts(db_session) == []


async def test_what_the_driver_refuses_has_not_failed(driver, db_session):
    transaction = driver.transaction()
    await transaction.start()
    await driver.execute("INSERT INTO notes (text) VALUES ('one')")
    with pytest.raises(asyncpg.DataError):
        await driver.fetchval("SELECT $1::int", "x")
    await transaction.commit()
    assert await texts(db_session) == ["one"]


async def test_a_statement_by_itself_is_kept(driver, database, db_session):
    await driver.execute("INSERT INTO notes (text) VALUES ('first')")
    async with database.session() as session:
        assert await texts(session) == ["first"]
        await driver.execute("INSERT INTO notes (text) VALUES ('one')")
        await session.rollback()
    assert await texts(db_session) == ["first", "one"]


async def test_requests_that_fail_side_by_side_know_nothing_of_each_other(db_session):
    transport = httpx.ASGITransport(litestar_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answers = await asyncio.gather(*[http.post("/notes/one") for _ in range(10)])
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9


async def test_the_codec_that_was_set_last_is_used(driver):
    async def set_codec(decoder):
        await driver.set_type_codec("json", schema="pg_catalog", encoder=str, decoder=decoder)
        return await driver.fetchval("SELECT '1'::json")

    assert await set_codec(lambda text: "first") == "first"
    assert await set_codec(str) == "1"
    assert await set_codec(int) == 1
"""


def test_a_statement_that_fails_is_its_own_transaction_s_affair(postgres_project: Project) -> None:
    postgres_project.passes(FAILURES, count=9)


REFUSED = """
import pytest
from reviewpoint_db import Database
from reviewpoint_db.testing import SandboxError
from tests.support.apps import add, texts
from tests.support.notes import write

async def test_asked_for(db_session):
    async with Database() as database:
        async with database.session(origin="the outer") as outer, database.session() as inner:
            await write(outer, "one")
            await add(inner, "two")
            with pytest.raises(SandboxError, match="the outer changed .* Use db_clone"):
                await outer.rollback()
    assert "two" in await texts(db_session)

async def test_at_the_session_s_end(db_sandbox):
    async with Database() as database:
        async with database.session(origin="the other") as outer, database.session() as inner:
            await write(outer, "one")
            await add(inner, "two")
"""


def test_an_application_s_rollback_under_another_s_commit_fails_its_test(project: Project) -> None:
    project.write("test_it.py", REFUSED)
    result = project.run()
    result.assert_outcomes(passed=2, errors=2)
    for name in ("outer", "other"):
        result.stdout.fnmatch_lines([f"*the {name} changed something, then another session*"])


ESCAPES = """
import pytest
from sqlalchemy import text
from reviewpoint_db import Database
from reviewpoint_db.testing import SandboxEscapeError
from tests.support.apps import add, texts
from tests.support.notes import write


@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK"])
async def test_escape(db_session, statement):
    async with Database() as database, database.session(origin="the culprit") as session:
        await write(session, "stored")
        with pytest.raises(SandboxEscapeError, match=f"the culprit executed '{statement}'"):
            await session.execute(text(statement))


async def test_the_next_one_finds_nothing(db_session):
    assert await texts(db_session) == []
"""


def test_a_statement_that_fails_and_ends_the_transaction_is_named(sqlite_project: Project) -> None:
    test = """
    import pytest
    from sqlalchemy import text
    from reviewpoint_db import Database
    from reviewpoint_db.testing import SandboxEscapeError
    from tests.support.notes import write

    async def test_it(db_session):
        async with Database() as database, database.session() as session:
            await write(session, "one")
            with pytest.raises(SandboxEscapeError, match="INSERT OR ROLLBACK"):
                await session.execute(text("INSERT OR ROLLBACK INTO notes (text) VALUES ('one')"))
    """
    result = sqlite_project.passes(test, errors=1)
    result.stdout.fnmatch_lines(["*INSERT OR ROLLBACK*, which ended the sandbox*"])


def test_a_commit_that_escapes_is_named_and_repaired(project: Project) -> None:
    project.write("test_it.py", ESCAPES)
    result = project.run()
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["the culprit executed 'COMMIT', which ended the *, or db_clone."])


def test_what_a_test_failed_with_is_said_once(sqlite_project: Project) -> None:
    test = """
    import asyncio
    import unittest
    import pytest
    from sqlalchemy import text
    from reviewpoint_db import Database

    async def escape():
        async with Database() as database, database.session() as session:
            await session.execute(text("COMMIT"))

    async def test_session(db_session):
        await db_session.execute(text("COMMIT"))

    @pytest.mark.db
    class TestCase(unittest.TestCase):
        def test_cause(self):
            try:
                asyncio.run(escape())
            except Exception as error:
                raise RuntimeError from error

    async def test_that_fails_with_something_else(db_sandbox):
        with pytest.raises(Exception):
            await escape()
        raise AssertionError
    """
    result = sqlite_project.passes(test, count=0, failed=3, errors=1)
    line = "E *SandboxEscapeError: The test's session executed 'COMMIT', which ended the sandbox*"
    result.stdout.fnmatch_lines([line])


def test_a_thread_that_outlives_its_test_stores_nothing_in_the_next_one(project: Project) -> None:
    test = """
    import asyncio
    import threading
    import pytest
    from reviewpoint_db import Database
    from reviewpoint_db.errors import ReviewPointDBError
    from reviewpoint_db.testing import SandboxError
    from tests.support.apps import texts
    from tests.support.notes import write

    begun, over = threading.Event(), threading.Event()
    threads, outcomes = [], []

    def run(second_half, blocked):
        async def use():
            session = Database().open_session()
            await write(session, "first half")
            begun.set()
            if blocked:
                over.wait(30)
            else:
                await asyncio.to_thread(over.wait, 30)
            if second_half:
                await write(session, "second half")
            await session.commit()

        try:
            asyncio.run(use())
        except Exception as error:
            outcomes.append(error)

    @pytest.mark.parametrize("blocked", [True, False])
    @pytest.mark.parametrize("second_half", [True, False])
    def test_first(db_sandbox, second_half, blocked):
        begun.clear(), over.clear()
        threads.append(threading.Thread(target=run, args=[second_half, blocked], name="late one"))
        threads[-1].start()
        assert begun.wait(30)

    async def test_second(db_session):
        over.set()
        await asyncio.to_thread(threads[-1].join, 30)
        assert await texts(db_session) == []
        [error] = outcomes
        assert isinstance(error, ReviewPointDBError)
        if isinstance(error, SandboxError):
            assert "late one uses a connection of test_it.py::test_first" in str(error)
    """
    for half in ("True", "False"):
        for blocked in ("True", "False"):
            only = f"second or {half}-{blocked}"
            project.passes(test, "-k", only, "-W", "ignore", count=2, deselected=3)


def test_a_connection_that_outlives_its_test_is_refused(postgres_project: Project) -> None:
    test = """
    import pytest
    from reviewpoint_db import Database, DatabaseUnavailableError
    from tests.support.apps import texts
    kept = []

    async def test_first(db_session):
        database = Database()
        session = database.open_session()
        assert await texts(session) == []
        kept.append((database, session))

    async def test_second(db_session):
        database, session = kept.pop()
        with pytest.raises(DatabaseUnavailableError, match="with its session or its test"):
            await session.commit()
        await database.end(session)
    """
    postgres_project.passes(test, "-o", "asyncio_default_test_loop_scope=session", count=2)


def test_an_unusual_connection_works_too(postgres_project: Project) -> None:
    test = """
    from sqlalchemy import text
    from reviewpoint_db import Database
    from tests.support.notes import notes

    async def test_it(db_session):
        async with Database() as database, database.engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver = raw.driver_connection
            assert driver.get_server_pid() > 0
            assert await driver.fetchval("SELECT 42") == 42
            assert await driver.execute("SET application_name = 'it'") == "SET"
            assert not driver.is_in_transaction()
            async with database.engine.begin() as other:
                await other.execute(notes.insert(), [{"text": "a"}, {"text": "b"}])
            assert await driver.fetchval("SELECT count(*) FROM notes") == 2
    """
    postgres_project.passes(test)


def test_the_driver_s_own_transactions_and_cursors_work(postgres_project: Project) -> None:
    test = """
    import pytest
    from reviewpoint_db import Database
    from tests.support.apps import texts

    async def test_it(db_session):
        async with Database() as database, database.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            async with driver.transaction():
                await driver.execute("INSERT INTO notes (text) VALUES ('one')")
                async with driver.transaction():
                    await driver.execute("INSERT INTO notes (text) VALUES ('two')")
                with pytest.raises(ZeroDivisionError):
                    async with driver.transaction():
                        await driver.execute("INSERT INTO notes (text) VALUES ('undone')")
                        1 / 0
                rows = driver.cursor("SELECT generate_series(1, $1::int)", 3, prefetch=2)
                assert [row[0] async for row in rows] == [1, 2, 3]
                cursor = await driver.cursor("SELECT 42")
                assert (await cursor.fetchrow())[0] == 42
            with pytest.raises(ZeroDivisionError):
                async with driver.transaction():
                    await driver.execute("INSERT INTO notes (text) VALUES ('undone')")
                    1 / 0
        assert await texts(db_session) == ["one", "two"]
    """
    postgres_project.passes(test)


def test_locks_and_prepared_statements_end_with_their_test(postgres_project: Project) -> None:
    test = """
    import pytest
    from sqlalchemy import text

    LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"

    @pytest.mark.parametrize("n", range(2))
    async def test_it(db_session, n):
        assert await db_session.scalar(text(LOCKS)) == 0
        await db_session.execute(text("SELECT pg_advisory_lock(42)"))
        await db_session.execute(text('PREPARE "It" AS SELECT 1'))
        await db_session.commit()
    """
    postgres_project.passes(test, count=2)


def test_a_connection_of_sqlite_without_a_transaction_has_none_to_end(
    sqlite_project: Project,
) -> None:
    test = """
    from reviewpoint_db import Database
    from tests.support.apps import add, texts

    async def test_it(db_session):
        await add(db_session, "one")
        async with Database() as database, database.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            await driver.commit()
            await driver.rollback()
            assert not driver.in_transaction
        assert await texts(db_session) == ["one"]
    """
    sqlite_project.passes(test)
