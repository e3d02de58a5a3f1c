"""`Depends(get_async_session)`."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
)

from reviewpoint_db import default
from reviewpoint_db.asgi import UnitOfWorkMiddleware
from reviewpoint_db.errors import (
    SessionClosedError,
)
from tests.support.asgi import client
from tests.support.default import create_notes, current, shown
from tests.support.notes import held, stored, write


def fastapi_app() -> FastAPI:
    app = FastAPI()

    @app.get("/answer")
    async def answer(db: AsyncSession = Depends(default.get_async_session)) -> Any:
        return await db.scalar(text("select 42"))

    @app.get("/write")
    async def write_one(db: AsyncSession = Depends(default.get_async_session)) -> str:
        await write(db, "written")
        return "done"

    @app.get("/store")
    async def store_one(db: AsyncSession = Depends(default.get_async_session)) -> str:
        await write(db, "stored")
        await db.commit()
        return "done"

    @app.get("/refuse")
    async def refuse(db: AsyncSession = Depends(default.get_async_session)) -> str:
        await write(db, "refused")
        raise HTTPException(409)

    @app.get("/break")
    async def break_down(db: AsyncSession = Depends(default.get_async_session)) -> str:
        await write(db, "broken")
        raise ZeroDivisionError

    @app.get("/same")
    async def same(
        db: AsyncSession = Depends(default.get_async_session),
        other: AsyncSession = Depends(default.get_async_session),
    ) -> bool:
        return db is other

    return app


async def test_depends_gives_a_session_and_closes_it(on_both: Any, log: list[str]) -> None:
    default.ensure_engine_initialized()
    await create_notes()
    async with client(fastapi_app()) as http:
        assert (await http.get("/answer")).json() == 42
        assert (await http.get("/same")).json() is True
        assert (await http.get("/write")).status_code == 200
        assert (await http.get("/store")).status_code == 200
        assert (await http.get("/refuse")).status_code == 409
        assert (await http.get("/break")).status_code == 500
    assert await stored(current()) == ["stored"]
    assert held(current()) == 0
    # An HTTP answer is no failure; anything else is.
    assert len(shown(log, "ERROR Unexpected error after 0.")) == 1
    assert len(shown(log, "DEBUG Unexpected error after 0.")) == 1


async def test_depends_joins_the_unit_of_work_of_a_middleware(on_both: Any, log: list[str]) -> None:
    default.ensure_engine_initialized()
    await create_notes()
    database = current()
    app = fastapi_app()
    sessions: list[AsyncSession] = []

    @app.get("/joined")
    async def joined(db: AsyncSession = Depends(default.get_async_session)) -> bool:
        unit = reviewpoint_db_unit()
        sessions.append(db)
        async with default.get_async_session() as own:
            return unit.session is db and own is not db

    @app.exception_handler(ZeroDivisionError)
    async def answered(request: object, error: Exception) -> Any:
        from fastapi.responses import PlainTextResponse

        return PlainTextResponse("never mind")

    stack = UnitOfWorkMiddleware(
        app, database, commit="autocommit", origin=lambda scope: f"GET {scope['path']}"
    )
    async with client(stack) as http:
        assert (await http.get("/joined")).json() is True
        assert (await http.get("/break")).status_code == 200
        assert (await http.get("/refuse")).status_code == 409
    with pytest.raises(SessionClosedError):
        await sessions[0].execute(text("select 1"))
    assert held(database) == 0
    assert await stored(database) == []
    assert shown(log, "DEBUG Session rollback completed for GET /break")


def reviewpoint_db_unit() -> Any:
    from reviewpoint_db.context import current_units

    units = current_units.get()
    assert units is not None
    return units["default"]


async def test_an_error_whose_rollback_fails_is_still_the_one_that_is_told(
    on_sqlite: Any, log: list[str]
) -> None:
    default.ensure_engine_initialized()
    app = fastapi_app()
    stack = UnitOfWorkMiddleware(app, current(), commit="manual", origin=lambda scope: "GET /x")

    @app.get("/stuck")
    async def stuck(db: AsyncSession = Depends(default.get_async_session)) -> str:
        db.rollback = mock.AsyncMock(side_effect=OSError)  # type: ignore[method-assign]
        raise HTTPException(418)

    async with client(stack) as http:
        assert (await http.get("/stuck")).status_code == 418
    assert shown(log, "ERROR Session rollback failed: OSError")
