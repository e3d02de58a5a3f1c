"""What becomes of a request's transaction in Litestar, and what the client is told of it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from litestar import Litestar, Request, Response, WebSocket, asgi, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.config.compression import CompressionConfig
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotAuthorizedException, WebSocketDisconnect
from litestar.params import FromQuery
from litestar.response import Redirect, ServerSentEvent, Stream
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.errors import SessionClosedError
from reviewpoint_db.litestar import (
    ReadSessionDep,
    ReviewPointDBPlugin,
    SessionDep,
    get_read_session,
    get_session,
)
from tests.support.asgi import WebSocketClient, client, request, running
from tests.support.notes import held, metadata, notes, stored, write, write_orphan

if TYPE_CHECKING:
    from litestar.handlers import BaseRouteHandler
    from litestar.types import ASGIApp, Receive, Scope, Send

    from reviewpoint_db.database import Database
    from reviewpoint_db.transaction import CommitMode


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing waits for the garbage collector: it is off."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


pytestmark = pytest.mark.usefixtures("no_collector")


def make(
    url: str, *handlers: Any, commit: CommitMode = "autocommit", **settings: Any
) -> tuple[Litestar, Database]:
    plugin = ReviewPointDBPlugin(
        DatabaseConfig(url=url, pool=PoolConfig(size=2, max_overflow=0, timeout=1)),
        commit=commit,
        metadata=metadata,
        create_all=True,
    )
    return Litestar([*handlers], plugins=[plugin], **settings), plugin.database


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


class TestWebSockets:
    @staticmethod
    async def talk(app: Litestar, *, leave: int | None = None) -> int | None:
        """Opens a socket, says one thing, and returns the code by which the application closes."""
        socket = WebSocketClient(app, "/")
        message = await socket.receive()
        if message["type"] == "websocket.accept":
            await socket.send("a")
            if leave is not None:
                await socket.leave(leave)
            message = await socket.receive() if leave is None else {}
        await socket.ended()
        return message.get("code")

    async def test_a_normal_end_stores(self, database_url: str) -> None:
        @websocket("/")
        async def handler(socket: WebSocket[Any, Any, Any], db_session: SessionDep) -> None:
            await socket.accept()
            await write(db_session, await socket.receive_text())
            await socket.close()

        app, database = make(database_url, handler)
        async with running(app):
            assert await self.talk(app) == 1000
            assert await stored(database) == ["a"]
            assert held(database) == 0

    async def test_a_failed_commit_is_told_by_the_code(self, database_url: str) -> None:
        @websocket("/")
        async def handler(socket: WebSocket[Any, Any, Any], db_session: SessionDep) -> None:
            await socket.accept()
            await write_orphan(db_session, await socket.receive_text())
            await socket.close()

        app, database = make(database_url, handler)
        async with running(app):
            assert await self.talk(app) == 1011
            assert await stored(database) == []
            assert held(database) == 0

    async def test_an_exception_rolls_back(self, database_url: str) -> None:
        @websocket("/")
        async def handler(socket: WebSocket[Any, Any, Any], db_session: SessionDep) -> None:
            await socket.accept()
            await write(db_session, await socket.receive_text())
            raise LookupError

        app, database = make(database_url, handler)
        async with running(app):
            assert await self.talk(app) == 4500
            assert await stored(database) == []
            assert held(database) == 0

    @pytest.mark.parametrize("caught", [False, True])
    async def test_a_client_that_is_gone(self, database_url: str, caught: bool) -> None:
        @websocket("/")
        async def handler(socket: WebSocket[Any, Any, Any], db_session: SessionDep) -> None:
            await socket.accept()
            await write(db_session, await socket.receive_text())
            try:
                await socket.receive_text()
            except WebSocketDisconnect:
                if not caught:
                    raise

        app, database = make(database_url, handler)
        async with running(app):
            await self.talk(app, leave=1006)
            assert held(database) == 0
            assert await stored(database) == (["a"] if caught else [])

    async def test_a_guard_or_parameter_that_fails_releases(self, database_url: str) -> None:
        async def guard(
            connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler
        ) -> None:
            await write(get_session(connection), "a")
            raise NotAuthorizedException

        @websocket("/", guards=[guard])
        async def handler(socket: WebSocket[Any, Any, Any], number: FromQuery[int]) -> None: ...

        app, database = make(database_url, handler)
        async with running(app):
            assert await self.talk(app) == 4500
            assert held(database) == 0
            assert await stored(database) == []


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
