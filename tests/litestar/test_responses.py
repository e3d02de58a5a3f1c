"""What streams, background tasks, caches, compression, hooks and mounted applications do to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from litestar import Request, Response, asgi, get, post
from litestar.background_tasks import BackgroundTask
from litestar.config.compression import CompressionConfig
from litestar.connection import ASGIConnection
from litestar.response import Redirect, ServerSentEvent, Stream
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as StarletteRequest
from starlette.routing import Mount, Route

from reviewpoint_db.asgi import unit_of
from reviewpoint_db.litestar import (
    SessionDep,
    get_session,
)
from reviewpoint_db.transaction import UnitOfWork
from tests.support.asgi import client, request, running
from tests.support.litestar import make
from tests.support.notes import held, notes, stored, write, write_orphan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar.params import FromQuery
    from litestar.types import Receive, Scope, Send

pytestmark = pytest.mark.usefixtures("no_collector")


class TestAfterTheStart:
    async def test_a_stream_uses_the_session(self, database_url: str) -> None:
        @get("/")
        async def handler(db_session: SessionDep) -> Stream:
            async def body() -> AsyncIterator[str]:
                for number in range(3):
                    await write(db_session, str(number))
                    yield f"{number};"

            return Stream(body())

        app, database = make(database_url, handler)
        async with running(app), client(app) as http:
            assert (await http.get("/")).text == "0;1;2;"
            assert await stored(database) == ["0", "1", "2"]
            assert held(database) == 0

    async def test_a_stream_whose_commit_fails_is_cut_short(self, database_url: str) -> None:
        @get("/")
        async def handler(db_session: SessionDep) -> Stream:
            async def body() -> AsyncIterator[str]:
                await write_orphan(db_session)
                yield "all is well"

            return Stream(body())

        app, database = make(database_url, handler)
        async with running(app):
            exchange = await request(app, "/")
            assert exchange.status == 200
            assert not exchange.complete
            assert exchange.error is not None
            assert await stored(database) == []
            assert held(database) == 0

    async def test_a_stream_that_fails_rolls_back(self, database_url: str) -> None:
        @get("/")
        async def handler(db_session: SessionDep) -> Stream:
            async def body() -> AsyncIterator[str]:
                await write(db_session, "a")
                yield "a"
                raise LookupError

            return Stream(body())

        app, database = make(database_url, handler)
        async with running(app):
            exchange = await request(app, "/")
            assert not exchange.complete
            assert await stored(database) == []
            assert held(database) == 0

    async def test_a_client_that_leaves_a_stream(self, database_url: str) -> None:
        @get("/")
        async def handler(db_session: SessionDep) -> Stream:
            async def body() -> AsyncIterator[str]:
                for number in range(1000):
                    await write(db_session, str(number))
                    yield "more"

            return Stream(body())

        app, database = make(database_url, handler)
        async with running(app):
            await request(app, "/", leave_after=3)
            assert held(database) == 0
            assert await stored(database) == []

    async def test_server_sent_events(self, database_url: str) -> None:
        @get("/")
        async def handler(db_session: SessionDep) -> ServerSentEvent:
            async def events() -> AsyncIterator[str]:
                await write(db_session, "a")
                for text in (await db_session.scalars(select(notes.c.text))).all():
                    yield text

            return ServerSentEvent(events())

        app, database = make(database_url, handler)
        async with running(app), client(app) as http:
            assert "data: a" in (await http.get("/")).text
            assert await stored(database) == ["a"]
            assert held(database) == 0

    async def test_a_background_task_uses_the_session(
        self, database_url: str, lines: list[str]
    ) -> None:
        @post("/")
        async def handler(db_session: SessionDep, text: FromQuery[str]) -> Response[None]:
            job = write_orphan if text == "orphan" else write
            return Response(None, background=BackgroundTask(job, db_session, text))

        app, database = make(database_url, handler)
        async with running(app), client(app) as http:
            assert (await http.post("/?text=a")).status_code == 201
            assert (await http.post("/?text=orphan")).status_code == 201
            assert await stored(database) == ["a"]
            assert held(database) == 0
        (line,) = [line for line in lines if "COMMIT after the response failed" in line]
        assert line.startswith("ERROR")


class TestOtherParties:
    async def test_a_cached_route_never_caches_an_error(self, database_url: str) -> None:
        failing = [True]

        @get("/", cache=True)
        async def handler(db_session: SessionDep) -> str:
            await (write_orphan if failing.pop() else write)(db_session, "a")
            failing.append(False)
            return "stored"

        app, database = make(database_url, handler)
        async with running(app), client(app) as http:
            failed = await http.get("/")
            assert failed.status_code == 409
            failing.append(False)
            assert [(await http.get("/")).text for _ in range(3)] == ["stored"] * 3
            assert await stored(database) == ["a"]

    async def test_a_cached_stream_whose_commit_fails_is_forgotten(self, database_url: str) -> None:
        calls: list[int] = []

        @get("/", cache=60, cache_key_builder=lambda _: "the stream")
        async def handler(db_session: SessionDep) -> Stream:
            calls.append(1)

            async def body() -> AsyncIterator[str]:
                await (write_orphan if len(calls) == 1 else write)(db_session, "a")
                yield "all is well"

            return Stream(body())

        app, database = make(database_url, handler)
        async with running(app):
            assert not (await request(app, "/")).complete
            assert (await request(app, "/")).body == b"all is well"
            assert (await request(app, "/")).body == b"all is well"
            assert len(calls) == 2
            assert await stored(database) == ["a"]

    async def test_a_cached_stream_whose_client_left_is_forgotten(self, database_url: str) -> None:
        """Its last part was stored for others before it was committed, and it never was."""
        calls: list[int] = []

        @get("/", cache=60, cache_key_builder=lambda _: "the stream")
        async def handler(db_session: SessionDep) -> Stream:
            calls.append(1)

            async def body() -> AsyncIterator[str]:
                await write(db_session, "a")
                yield "all is well"

            return Stream(body())

        async def leave(self: UnitOfWork, *, succeeded: bool) -> None:
            if self.dirty:
                raise asyncio.CancelledError  # as anyio's task group does to a stream

        app, database = make(database_url, handler)
        async with running(app):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(UnitOfWork, "finish", leave)
                with pytest.raises(asyncio.CancelledError):
                    await request(app, "/")
            assert (await request(app, "/")).body == b"all is well"
            assert len(calls) == 2
            assert await stored(database) == ["a"]

    async def test_compression(self, database_url: str) -> None:
        @post("/")
        async def handler(db_session: SessionDep, orphan: FromQuery[bool]) -> str:
            await (write_orphan if orphan else write)(db_session, "a")
            return "stored " * 1000

        app, database = make(
            database_url, handler, compression_config=CompressionConfig(backend="gzip")
        )
        async with running(app), client(app) as http:
            fine = await http.post("/?orphan=false")
            assert (fine.headers["content-encoding"], fine.text) == ("gzip", "stored " * 1000)
            failed = await http.post("/?orphan=true")
            assert (failed.status_code, failed.json()["status_code"]) == (409, 409)
            assert await stored(database) == ["a"]

    async def test_hooks_around_the_handler(self, database_url: str) -> None:
        async def before(request: Request[Any, Any, Any]) -> None:
            await write(get_session(request), "before")

        async def after(response: Response[Any]) -> Response[Any]:
            response.headers["x-after"] = "yes"
            return response

        async def afterwards(request: Request[Any, Any, Any]) -> None:
            await write(get_session(request), "afterwards")

        @post("/")
        async def handler(db_session: SessionDep) -> None:
            await write(db_session, "handler")

        app, database = make(
            database_url,
            handler,
            before_request=before,
            after_request=after,
            after_response=afterwards,
        )
        async with running(app), client(app) as http:
            assert (await http.post("/")).headers["x-after"] == "yes"
            assert await stored(database) == ["afterwards", "before", "handler"]
            assert held(database) == 0

    async def test_redirects_are_a_success(self, sqlite_url: str) -> None:
        @post("/")
        async def handler(db_session: SessionDep) -> Redirect:
            await write(db_session, "a")
            return Redirect("/elsewhere")

        app, database = make(sqlite_url, handler)
        async with running(app), client(app) as http:
            assert (await http.post("/")).status_code == 302
            assert await stored(database) == ["a"]

    @pytest.mark.parametrize("copy_scope", [True, False])
    async def test_mounted_applications(self, database_url: str, copy_scope: bool) -> None:
        @asgi("/mounted", is_mount=True, copy_scope=copy_scope)
        async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
            session = get_session(ASGIConnection(scope))
            await (write_orphan if "orphan" in scope["path"] else write)(session, "a")
            await Response("mounted").to_asgi_response(None, Request(scope))(scope, receive, send)

        app, database = make(database_url, mounted)
        async with running(app), client(app) as http:
            assert (await http.get("/mounted/anything")).text == "mounted"
            assert (await http.get("/mounted/orphan")).status_code == 409
            assert await stored(database) == ["a"]
            assert held(database) == 0

    async def test_a_redirect_that_a_mounted_starlette_application_raises_rolls_back(
        self, database_url: str
    ) -> None:
        async def moved(request: StarletteRequest) -> None:
            await write(unit_of(request.scope).session, "half")
            raise HTTPException(303, headers={"location": "/"})

        inner = Starlette(routes=[Mount("/", routes=[Route("/moved/", moved)])])

        @asgi("/mounted", is_mount=True, copy_scope=True)
        async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
            await inner(cast("Any", scope), cast("Any", receive), cast("Any", send))

        app, database = make(database_url, mounted)
        async with running(app), client(app) as http:
            assert (await http.get("/mounted/moved/")).status_code == 303
            assert await stored(database) == []
            assert held(database) == 0
