"""What of a request's own session counts as a write, by whichever method it was made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from advanced_alchemy.base import BigIntBase
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from litestar import Litestar, get
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Mapped

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import CommitOutcomeUnknownError
from reviewpoint_db.litestar import ReviewPointDBPlugin, SessionDep
from reviewpoint_db.lsn import MAX_LSN
from reviewpoint_db.read_your_writes import ReadYourWrites, Tokens
from reviewpoint_db.replica import Replica
from reviewpoint_db.replica_watch import Seen
from reviewpoint_db.session_state import state_of
from tests.support.asgi import client, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

SECRET = "a secret of many characters"


class Memo(BigIntBase):
    """Something to write."""

    __tablename__ = "memo"

    body: Mapped[str]


class Memos(SQLAlchemyAsyncRepository[Memo]):
    """Reads them."""

    model_type = Memo


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    """One with a replica, which is never asked how it is."""
    config = DatabaseConfig(
        url=postgres_url,
        read_url=postgres_url,
        environment="test",
        read_your_writes=True,
        read_your_writes_secret=SECRET,
        read_your_writes_wait=0.05,
    )
    database = Database(config)
    replicas = database.replicas
    assert replicas is not None
    replicas._watch = SimpleNamespace(running=True, stop=lambda: None)  # type: ignore[assignment]
    async with database:
        async with database.session() as session:
            await session.run_sync(
                lambda sync: Memo.metadata.tables["memo"].create(sync.connection())
            )
            await session.commit()
        replicas.tell(0, Seen(lag=0.0, replayed=1))
        yield database


async def by_scalar(session: AsyncSession) -> None:
    await session.scalar(insert(Memo).values(body="a").returning(Memo.id))


async def by_scalars_in_sync(session: AsyncSession) -> None:
    statement = insert(Memo).values(body="a").returning(Memo.id)
    await session.run_sync(lambda sync: sync.scalars(statement).all())


async def by_connection(session: AsyncSession) -> None:
    connection = await session.connection()
    await connection.execute(insert(Memo).values(body="a"))


async def by_bulk_insert(session: AsyncSession) -> None:
    await session.run_sync(lambda sync: sync.bulk_insert_mappings(Memo, [{"body": "a"}]))


async def by_bulk_save(session: AsyncSession) -> None:
    await session.run_sync(lambda sync: sync.bulk_save_objects([Memo(body="a")]))


async def by_bulk_update(session: AsyncSession) -> None:
    rows: Any = [{"id": 1, "body": "b"}]
    await session.execute(select(text("1")))
    await session.run_sync(lambda sync: sync.bulk_update_mappings(Memo, rows[:0]))


WAYS = [by_scalar, by_scalars_in_sync, by_connection, by_bulk_insert, by_bulk_save, by_bulk_update]


@pytest.mark.parametrize("write", WAYS, ids=lambda write: write.__name__)
async def test_whatever_may_write_counts_as_a_write(
    database: Database, write: Callable[[AsyncSession], Awaitable[None]]
) -> None:
    unit = database.unit_of_work()
    await write(unit.session)
    before = unit.stored
    await unit.session.commit()
    assert (before, unit.stored) == (False, True)
    assert await unit.read_session.scalar(text("select 1")) == 1
    assert not isinstance(state_of(unit.read_session).source, Replica)
    await unit.release()


async def test_a_read_does_not(database: Database) -> None:
    unit = database.unit_of_work()
    await unit.session.scalar(select(Memo.id))
    await unit.session.commit()
    assert not unit.stored
    await unit.release()


@pytest.mark.parametrize("block", [True, False])
async def test_who_looks_whether_it_was_stored_looks_at_the_primary(
    database: Database, block: bool
) -> None:
    """The COMMIT may still be under way, so no LSN is known to be after it."""
    await _have_commits_cut(database)
    unit = database.unit_of_work()
    with pytest.raises(CommitOutcomeUnknownError):
        await (_in_a_block if block else _and_commit)(unit.session)
    assert await unit.read_session.scalar(text("select 1")) == 1
    assert state_of(unit.read_session).required_lsn == MAX_LSN
    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    writes = ReadYourWrites(database)
    start = {"type": "http.response.start", "status": 500, "headers": []}
    await writes.telling(unit, {"scheme": "http"}, send)(start)
    assert writes.required_lsn({"headers": answers[0]["headers"]}) == MAX_LSN
    await unit.release()


async def _in_a_block(session: AsyncSession) -> None:
    async with session.begin():
        await by_scalar(session)


async def _and_commit(session: AsyncSession) -> None:
    await by_scalar(session)
    await session.commit()


async def _have_commits_cut(database: Database) -> None:
    """Have the server end whoever commits a new row, at the COMMIT."""
    async with database.session() as session:
        await session.execute(
            text(
                "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
            )
        )
        await session.execute(
            text(
                "CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON memo "
                "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION cut()"
            )
        )
        await session.commit()


async def test_a_repository_may_ask_for_the_dialect_of_a_session_that_waits(
    database: Database,
) -> None:
    """advanced-alchemy does, when one is made: outside of any statement."""
    unit = database.unit_of_work()
    unit.required_lsn = MAX_LSN - 1
    memos = Memos(session=unit.read_session)
    assert state_of(unit.read_session).source is None
    assert await memos.count() == 0
    assert state_of(unit.read_session).source is not None
    await unit.release()


@pytest.mark.parametrize(
    "cookies",
    ["a=b; list[0]=1; ", 'settings={"theme":"dark"}; ', 'a="unended; ', "no value; =; ;; \xff=1; "],
)
async def test_a_token_is_found_behind_any_other_cookie(database: Database, cookies: str) -> None:
    token = Tokens(database.config).make(77)
    brought = f"{cookies}reviewpoint_db_default={token}; z=1".encode("latin-1")
    assert ReadYourWrites(database).required_lsn({"headers": [(b"cookie", brought)]}) == 77


async def test_a_cached_answer_bears_no_token(database: Database) -> None:
    """It is another client's, and of another time."""

    @get("/", cache=True)
    async def handler(db_session: SessionDep) -> int:
        await by_scalar(db_session)
        await db_session.commit()
        return 1

    app = Litestar([handler], plugins=[ReviewPointDBPlugin(database.config)])
    async with running(app), client(app) as http:
        answers = [await http.get("/") for _ in range(2)]
    assert [answer.json() for answer in answers] == [1, 1]
    name = "x-reviewpoint-db-default"
    assert [name in answer.headers for answer in answers] == [True, False]
