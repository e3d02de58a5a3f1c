"""An error that the application caught: what was stored is what is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, SQLAlchemyError
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.starlette import get_session, setup_database
from tests.support.asgi import client, running
from tests.support.notes import held, metadata, stored, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from reviewpoint_db.transaction import CommitMode


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(url=database_url)
    async with Database(config, metadata=metadata, create_all=True) as made:
        yield made


async def twice(request: Request) -> Response:
    session = get_session(request)
    await write(session, "first")
    with pytest.raises(IntegrityError):
        await write(session, "first")
    if "commit" in request.query_params:
        await session.commit()
    return Response(status_code=201)


@pytest.mark.parametrize("commit", ["autocommit", "manual"])
async def test_a_success_is_answered_only_for_what_is_stored(
    database_url: str, commit: CommitMode
) -> None:
    """PostgreSQL answers the COMMIT of a failed transaction with a rollback, and no error."""
    app = Starlette(routes=[Route("/", twice)])
    database = setup_database(
        app, DatabaseConfig(url=database_url), commit=commit, metadata=metadata, create_all=True
    )
    async with running(app), client(app) as http:
        answer = await http.get("/", params={"commit": "1"} if commit == "manual" else {})
        rows = await stored(database)
        assert (answer.status_code, rows) in [(201, ["first"]), (500, [])]
        assert held(database) == 0


async def test_the_error_of_a_failed_transaction_says_the_way_out(postgres_url: str) -> None:
    """Once, and the session works again."""
    config = DatabaseConfig(url=postgres_url)
    async with (
        Database(config, metadata=metadata, create_all=True) as database,
        database.session() as session,
    ):
        await write(session, "first")
        with pytest.raises(IntegrityError):
            await write(session, "first")
        with pytest.raises(InvalidRequestError, match=r"Nothing was stored.*begin_nested"):
            await session.commit()
        await write(session, "second")
        await session.commit()
        assert await stored(database) == ["second"]


async def test_an_error_inside_of_a_savepoint_costs_nothing_else(database: Database) -> None:
    async with database.session() as session:
        await write(session, "first")
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await write(session, "first")
        await session.commit()
    assert await stored(database) == ["first"]


async def test_a_connection_lost_after_a_caught_error_is_not_an_unknown_outcome(
    postgres_url: str,
) -> None:
    """The COMMIT was not sent yet."""
    config = DatabaseConfig(url=postgres_url)
    async with (
        Database(config, metadata=metadata, create_all=True) as database,
        database.session() as session,
    ):
        await write(session, "first")
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                await write(session, "first")
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        async with database.session() as other:
            await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(SQLAlchemyError) as caught:
            await session.commit()
        assert "may have been stored" not in str(caught.value)
        assert await stored(database) == []


async def test_what_follows_a_rollback_of_sqlites_own_is_not_stored(sqlite_url: str) -> None:
    """SQLite rolls back by itself when a disk is full, say; it would store all that follows."""
    config = DatabaseConfig(url=sqlite_url)
    async with Database(config, metadata=metadata, create_all=True) as database:
        async with database.session() as session:
            await write(session, "first")
            with pytest.raises(IntegrityError):
                await session.execute(text("INSERT OR ROLLBACK INTO notes (text) VALUES ('first')"))
            with pytest.raises(SQLAlchemyError):
                await write(session, "second")
            with pytest.raises(SQLAlchemyError):
                await session.commit()
        assert await stored(database) == []
        assert held(database) == 0
