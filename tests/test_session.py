"""Our sessions: what they refuse, what they give back, what read sessions cost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError, InterfaceError, ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.disposal import dispose_all
from reviewpoint_db.errors import (
    CommitOutcomeUnknownError,
    DatabaseUnavailableError,
    ReadOnlySessionError,
    SessionClosedError,
)
from reviewpoint_db.session_state import state_of
from tests.support.notes import held, metadata, notes, stored, write, write_orphan
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Executable
    from sqlalchemy.orm import Mapped


class Base(DeclarativeBase):
    metadata = metadata


class Note(Base):
    __table__ = notes

    if TYPE_CHECKING:
        id: Mapped[int]
        text: Mapped[str]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(
        url=database_url, pool=PoolConfig(size=1, max_overflow=0, timeout=1), query_timeout=2
    )
    async with Database(config, metadata=metadata, create_all=True) as database:
        yield database


@pytest.fixture
async def filled(database: Database) -> Database:
    async with database.session() as session:
        await write(session, "note")
        await session.commit()
    return database


# -- sessions -------------------------------------------------------------------------------------


async def test_a_failed_commit_is_followed_by_a_rollback(database: Database) -> None:
    async with database.session() as session:
        await write_orphan(session)
        with pytest.raises(IntegrityError):
            await session.commit()
        assert held(database) == 0
        await write(session, "note")
        await session.commit()
    assert await stored(database) == ["note"]


async def test_a_session_without_a_transaction_has_nothing_to_end(database: Database) -> None:
    async with database.session() as session:
        await session.commit()
        await session.rollback()
        assert held(database) == 0


async def test_a_session_that_is_over_says_so(database: Database) -> None:
    async with database.session() as session:
        await session.execute(select(notes))
    with pytest.raises(SessionClosedError, match="is over"):
        await session.execute(select(notes))
    async with database.session() as unused:
        pass
    with pytest.raises(SessionClosedError, match="is over"):
        await unused.execute(select(notes))
    assert held(database) == 0


async def test_a_connection_that_arrives_after_the_end_is_given_back(database: Database) -> None:
    async with database.session() as holder:
        await holder.execute(text("select 1"))
        late = database.open_session()
        query = asyncio.create_task(late.execute(text("select 1")))
        await asyncio.sleep(0)
        await database.end(late)
        assert held(database) == 1
    await asyncio.wait([query], timeout=5)
    assert isinstance(query.exception(), SessionClosedError)
    assert held(database) == 0


async def test_another_engine_may_be_named(database: Database, tmp_path: object) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/other.sqlite3")
    async with database.session() as session:
        found = await session.execute(
            text("select 42"), bind_arguments={"bind": engine.sync_engine}
        )
        assert found.scalar_one() == 42
    await engine.dispose()


@pytest.mark.parametrize("second_half", [True, False])
async def test_a_transaction_whose_connection_was_cut_goes_on_nowhere(
    database: Database, second_half: bool
) -> None:
    """As a stop does with a session that does not end."""
    async with database.session() as session:
        await write(session, "first half")
        here = asyncio.get_running_loop()
        await dispose_all((here, engine) for _, engine in database.take_engines())
        goes_on = (
            session.execute(insert(notes), [{"text": "second"}, {"text": "half"}])
            if second_half
            else session.commit()
        )
        with pytest.raises((DatabaseUnavailableError, CommitOutcomeUnknownError, InterfaceError)):
            await goes_on
        await session.rollback()
        await write(session, "anew")
        await session.commit()
    assert await stored(database) == ["anew"]


async def test_a_long_lived_session_keeps_no_closed_connections(database: Database) -> None:
    async with database.session() as session:
        for number in range(3):
            await write(session, str(number))
            await session.commit()
        await session.execute(select(notes))
        assert len(state_of(session).connections) == 1


async def test_what_waits_for_a_commit_is_known(database: Database) -> None:
    async with database.session() as session:
        await session.execute(select(notes))
        assert not state_of(session).uncommitted
        session.add(Note(text="flushed"))
        await session.flush()
        assert state_of(session).uncommitted
        await session.rollback()
        assert not state_of(session).uncommitted
        await write(session, "executed")
        async with session.begin_nested():
            await write(session, "inside")
        assert state_of(session).uncommitted
        await session.commit()
        assert not state_of(session).uncommitted


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        ("insert into notes (text) values ('new')", True),
        ("\n  UPDATE notes set text = 'x'", True),
        ("delete from notes", True),
        ("select 1", False),
        ("with w as (select 1) select * from w", False),
    ],
)
async def test_a_text_that_changes_rows_waits_for_a_commit_too(
    database: Database, statement: str, changes: bool
) -> None:
    async with database.session() as session:
        await session.execute(text(statement))
        assert state_of(session).uncommitted is changes


# -- read sessions --------------------------------------------------------------------------------


async def test_a_read_session_holds_no_connection_between_its_statements(filled: Database) -> None:
    async with filled.read_session() as session:
        assert len((await session.execute(select(notes))).all()) == 1
        assert held(filled) == 0
        assert await session.scalar(select(notes.c.text)) == "note"
        assert held(filled) == 0
        assert list(await session.scalars(select(notes.c.text))) == ["note"]
        assert held(filled) == 0
        note = await session.get(Note, await session.scalar(select(notes.c.id)))
        assert held(filled) == 0
        assert note is not None
        await session.refresh(note)
        assert note.text == "note"
        assert held(filled) == 0
        count = await session.run_sync(lambda sync: len(sync.execute(select(notes)).all()))
        assert (count, held(filled)) == (1, 0)
        assert await session.run_sync(lambda _: 42) == 42
        texts = await session.run_sync(lambda sync: list(sync.scalars(select(notes.c.text))))
        assert (texts, held(filled)) == (["note"], 0)


@pytest.mark.parametrize(
    "statement",
    [
        insert(notes).values(text="x"),
        update(notes).values(text="x"),
        delete(notes),
    ],
    ids=["insert", "update", "delete"],
)
async def test_a_read_session_refuses_to_write(filled: Database, statement: Executable) -> None:
    async with filled.read_session() as session:
        with pytest.raises(ReadOnlySessionError, match="asked to write"):
            await session.execute(statement)
        assert held(filled) == 0
        with pytest.raises(ReadOnlySessionError):
            await session.run_sync(lambda sync: metadata.drop_all(sync.connection()))
        assert held(filled) == 0
        session.add(Note(text="orm"))
        with pytest.raises(ReadOnlySessionError):
            await session.flush()
    assert held(filled) == 0
    assert await stored(filled) == ["note"]


async def test_a_read_session_has_no_savepoints(database: Database) -> None:
    async with database.read_session() as session:
        with pytest.raises(ReadOnlySessionError, match="no savepoints"):
            await session.begin_nested()


async def test_a_stream_keeps_its_connection_until_the_end(filled: Database) -> None:
    async with filled.read_session() as session:
        rows = await session.stream(select(notes.c.text))
        assert held(filled) == 1
        # Another statement in between joins it.
        assert await session.scalar(select(notes.c.text)) == "note"
        assert [row.text async for row in rows] == ["note"]
        assert held(filled) == 1
    assert held(filled) == 0


async def test_a_stream_may_name_its_engine(filled: Database) -> None:
    async with filled.read_session() as session:
        rows = await session.stream(
            select(notes.c.text), bind_arguments={"bind": filled.engine.sync_engine}
        )
        assert [row.text async for row in rows] == ["note"]


async def test_a_read_that_fails_gives_the_connection_back(database: Database) -> None:
    async with database.read_session() as session:
        with pytest.raises(Exception, match="missing"):
            await session.execute(text("select * from missing"))
        assert held(database) == 0
        await session.execute(select(notes))


@pytest.fixture
async def relayed(postgres_url: str) -> AsyncIterator[tuple[Database, Relay]]:
    with Relay.to(postgres_url) as relay:
        config = DatabaseConfig(url=relay.url(postgres_url))
        async with Database(config, metadata=metadata, create_all=True) as database:
            yield database, relay


async def test_a_select_whose_connection_was_lost_runs_again(
    relayed: tuple[Database, Relay],
) -> None:
    database, relay = relayed
    relay.at("notes.text", "cut")
    async with database.read_session() as session:
        assert await session.scalar(select(notes.c.text)) is None


async def test_a_text_whose_connection_was_lost_does_not(relayed: tuple[Database, Relay]) -> None:
    database, relay = relayed
    relay.at("pg_notify", "cut")
    async with database.read_session() as session:
        with pytest.raises(Exception, match="connection was closed"):
            await session.execute(text("select pg_notify('a', 'b')"))


async def test_a_read_costs_one_round_trip(relayed: tuple[Database, Relay]) -> None:
    database, relay = relayed
    async with database.read_session() as session:
        await session.execute(select(notes))
        relay.reset()
        await session.execute(select(notes))
        await session.commit()
    assert relay.counters.round_trips == 1


async def test_on_postgresql_a_stream_is_read_only_for_the_server_too(postgres_url: str) -> None:
    async with Database(DatabaseConfig(url=postgres_url)) as database:
        async with database.session() as session:
            await session.execute(text("create table t (v integer)"))
            await session.commit()
        async with database.read_session() as session:
            rows = await session.stream(text("show transaction_read_only"))
            assert [row[0] async for row in rows] == ["on"]
            with pytest.raises(ProgrammingError):
                await session.execute(text("select * from missing"))
