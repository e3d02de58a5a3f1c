"""What becomes of a request's transaction in Litestar, and what the client is told of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from litestar import Request, get, post
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotAuthorizedException
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from reviewpoint_db.errors import SessionClosedError
from reviewpoint_db.litestar import (
    ReadSessionDep,
    SessionDep,
    get_read_session,
    get_session,
)
from tests.support.asgi import client, request, running
from tests.support.litestar import make
from tests.support.notes import held, notes, stored, write, write_orphan

if TYPE_CHECKING:
    from litestar.params import FromQuery
    from litestar.types import ASGIApp, Receive, Scope, Send

pytestmark = pytest.mark.usefixtures("no_collector")


class TestCommit:
    @pytest.mark.parametrize(
        ("status", "kept"), [(200, True), (201, True), (303, True), (400, False), (500, False)]
    )
    async def test_the_status_decides(self, database_url: str, status: int, kept: bool) -> None:
        @post("/", status_code=status)
        async def handler(db_session: SessionDep) -> None:
            await write(db_session, "a")

        app, database = make(database_url, handler)
        async with running(app), client(app) as http:
            assert (await http.post("/")).status_code == status
            assert await stored(database) == (["a"] if kept else [])
            assert held(database) == 0

    async def test_by_hand(self, database_url: str, lines: list[str]) -> None:
        @post("/")
        async def handler(db_session: SessionDep, commit: FromQuery[bool]) -> None:
            await write(db_session, "a")
            if commit:
                await db_session.commit()

        app, database = make(database_url, handler, commit="manual")
        async with running(app), client(app) as http:
            assert (await http.post("/?commit=false")).status_code == 201
            assert await stored(database) == []
            (line,) = [line for line in lines if "uncommitted" in line]
            assert "POST / " in line
            assert "handler" in line
            await http.post("/?commit=true")
            assert await stored(database) == ["a"]
            assert len([line for line in lines if "uncommitted" in line]) == 1

    async def test_before_the_first_byte_leaves(self, database_url: str) -> None:
        @get("/")
        async def handler(db_session: SessionDep) -> None:
            await write(db_session, "a")

        app, database = make(database_url, handler)
        seen: list[Any] = []

        async def look(message: Any) -> None:
            seen.append((message["type"], await stored(database)))

        async with running(app):
            await request(app, "/", on_message=look)
        assert seen[0] == ("http.response.start", ["a"])

    async def test_an_exception_rolls_back(self, database_url: str) -> None:
        @post("/")
        async def handler(db_session: SessionDep) -> None:
            await write(db_session, "a")
            raise LookupError

        app, database = make(database_url, handler)
        async with running(app), client(app) as http:
            assert (await http.post("/")).status_code == 500
            assert await stored(database) == []
            assert held(database) == 0


class TestRelease:
    async def test_when_guard_dependency_or_validation_fails(self, database_url: str) -> None:
        async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: Any) -> None:
            await get_session(connection).execute(select(notes))
            if "forbidden" in connection.query_params:
                raise NotAuthorizedException

        async def first(db_session: SessionDep) -> int:
            await write(db_session, "a")
            return 1

        async def second(first: NamedDependency[int], request: Request[Any, Any, Any]) -> int:
            if "broken" in request.query_params:
                raise LookupError
            return first

        @post("/", guards=[guard], dependencies={"first": first, "second": second})
        async def handler(second: NamedDependency[int], number: FromQuery[int]) -> int:
            return second + number

        app, database = make(database_url, handler)
        async with running(app), client(app) as http:
            for query, status in (
                ("?forbidden=1&number=1", 401),
                ("?broken=1&number=1", 500),
                ("?number=one", 400),
            ):
                assert (await http.post(f"/{query}")).status_code == status
                assert held(database) == 0
            assert await stored(database) == []
            assert (await http.post("/?number=1")).text == "2"
            assert await stored(database) == ["a"]

    async def test_of_what_middleware_asked_for(self, database_url: str) -> None:
        """It sees the handler's session, and what it does after the response is stored too."""

        class Audit:
            def __init__(self, app: ASGIApp) -> None:
                self.app = app

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                connection: Any = ASGIConnection(scope)
                session = get_session(connection)
                await write(session, "before")
                scope["seen"] = session  # type: ignore[typeddict-unknown-key]
                assert (
                    await get_read_session(connection).scalar(select(func.count(notes.c.id))) == 0
                )
                await self.app(scope, receive, send)

        @post("/")
        async def handler(db_session: SessionDep, request: Request[Any, Any, Any]) -> bool:
            await write(db_session, "handler")
            scope: Any = request.scope
            return scope["seen"] is db_session

        app, database = make(database_url, handler, middleware=[Audit])
        async with running(app), client(app) as http:
            assert (await http.post("/")).text == "true"
            assert await stored(database) == ["before", "handler"]
            assert held(database) == 0

    async def test_when_the_request_is_cancelled(self, database_url: str) -> None:
        inside = asyncio.Event()

        @get("/")
        async def handler(db_session: SessionDep) -> None:
            await write(db_session, "a")
            inside.set()
            await asyncio.Event().wait()

        app, database = make(database_url, handler)
        async with running(app):
            task = asyncio.create_task(request(app, "/"))
            await asyncio.wait_for(inside.wait(), 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert held(database) == 0
            assert await stored(database) == []

    async def test_a_session_used_later_is_a_clear_error(self, sqlite_url: str) -> None:
        kept: list[Any] = []

        @get("/")
        async def handler(db_session: SessionDep, db_read_session: ReadSessionDep) -> None:
            kept.extend([db_session, db_read_session])

        app, _ = make(sqlite_url, handler)
        async with running(app), client(app) as http:
            await http.get("/")
            for session in kept:
                with pytest.raises(SessionClosedError, match=r"database\.session\(\)"):
                    await session.execute(select(notes))


async def test_the_handler_sees_what_its_own_commit_raised(database_url: str) -> None:
    @post("/")
    async def handler(db_session: SessionDep) -> str:
        await write_orphan(db_session)
        try:
            await db_session.commit()
        except IntegrityError:
            await write(db_session, "instead")
        return "handled"

    app, database = make(database_url, handler)
    async with running(app), client(app) as http:
        assert (await http.post("/")).text == "handled"
        assert await stored(database) == ["instead"]


async def test_reads_by_the_read_session(database_url: str) -> None:
    @get("/", dependencies={"number": Provide(lambda: 1, sync_to_thread=False)})
    async def handler(db_read_session: ReadSessionDep, number: NamedDependency[int]) -> int:
        return number + (await db_read_session.scalar(select(func.count(notes.c.id))) or 0)

    app, database = make(database_url, handler)
    async with running(app), client(app) as http:
        assert (await http.get("/")).text == "1"
        assert held(database) == 0
