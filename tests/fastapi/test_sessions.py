"""Sessions by FastAPI's dependency injection."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel
from sqlmodel import select as select_model
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelSession

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.default import get_async_session
from reviewpoint_db.errors import ReadOnlySessionError
from reviewpoint_db.fastapi import (
    ReadSessionDep,
    ReadSessionOf,
    SessionDep,
    SessionOf,
    get_read_session,
    get_session,
    setup_database,
)
from tests.support.asgi import WebSocketClient, client, request, running
from tests.support.notes import held, metadata, notes, stored, write, write_orphan


def make(
    url: str, *, commit: Any = "autocommit", pool: PoolConfig | None = None
) -> tuple[FastAPI, Database]:
    """An application with a database, and no routes yet."""
    app = FastAPI()
    config = DatabaseConfig(url=url, pool=pool)
    return app, setup_database(app, config, commit=commit, metadata=metadata, create_all=True)


async def test_the_parameter_is_all_that_a_handler_writes(database_url: str) -> None:
    app, _ = make(database_url)

    @app.get("/")
    async def index(session: SessionDep) -> dict[str, int]:
        return {"answer": (await session.execute(text("select 42"))).scalar_one()}

    async with running(app), client(app) as http:
        assert (await http.get("/")).json() == {"answer": 42}


@pytest.mark.parametrize(
    ("commit", "path", "kept"),
    [
        ("manual", "/left", []),
        ("manual", "/committed", ["a note"]),
        ("autocommit", "/left", ["a note"]),
        ("autocommit", "/left?status=404", []),
        ("autocommit", "/raised", []),
    ],
)
async def test_who_commits(database_url: str, commit: str, path: str, kept: list[str]) -> None:
    app, database = make(database_url, commit=commit)

    @app.get("/left")
    async def left(session: SessionDep, status: int = 201) -> JSONResponse:
        await write(session, "a note")
        return JSONResponse(None, status_code=status)

    @app.get("/committed")
    async def committed(session: SessionDep) -> None:
        await write(session, "a note")
        await session.commit()

    @app.get("/raised")
    async def raised(session: SessionDep) -> None:
        await write(session, "a note")
        raise HTTPException(418)

    async with running(app), client(app) as http:
        await http.get(path)
        assert await stored(database) == kept
        assert held(database) == 0


async def test_the_row_is_there_before_the_first_byte_leaves(database_url: str) -> None:
    app, database = make(database_url)
    seen: list[list[str]] = []

    @app.get("/")
    async def index(session: SessionDep) -> None:
        await write(session, "a note")

    async def look(message: Any) -> None:
        seen.append(await stored(database))

    async with running(app):
        await request(app, "/", on_message=look)
    assert seen == [["a note"], ["a note"]]


# Errors


def add_orphans(app: FastAPI) -> None:
    @app.get("/at-commit")
    async def at_commit(session: SessionDep) -> None:
        await write_orphan(session)

    @app.get("/before")
    async def before(session: SessionDep) -> None:
        await write_orphan(session)
        await session.commit()

    @app.get("/original")
    async def original(session: Annotated[AsyncSession, Depends(get_async_session)]) -> None:
        await write_orphan(session)


PATHS = ["/at-commit", "/before", "/original"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_commit_that_fails_is_a_conflict_in_fastapis_own_shape(
    database_url: str, path: str
) -> None:
    app, database = make(database_url)
    add_orphans(app)
    app.add_middleware(CORSMiddleware, allow_origins=["http://page"])
    async with running(app), client(app) as http:
        answer = await http.get(path, headers={"origin": "http://page"})
        assert answer.status_code == 409
        assert answer.json() == {"detail": "The change conflicts with existing data."}
        assert answer.headers["access-control-allow-origin"] == "http://page"
        assert await stored(database) == []
        assert held(database) == 0


@pytest.mark.parametrize("path", PATHS)
async def test_the_applications_handler_answers(database_url: str, path: str) -> None:
    app, _ = make(database_url)
    add_orphans(app)

    @app.exception_handler(IntegrityError)
    async def mine(request: Request, error: IntegrityError) -> JSONResponse:
        return JSONResponse({"mine": error.orig is not None}, status_code=422)

    async with running(app), client(app) as http:
        answer = await http.get(path)
    assert (answer.status_code, answer.json()) == (422, {"mine": True})


async def test_a_database_that_is_away_is_told_with_retry_after(own_postgres: Any) -> None:
    url = own_postgres.create_database("away")
    app, database = make(url, pool=PoolConfig(timeout=0.3))

    @app.get("/")
    async def index(session: SessionDep) -> Any:
        return await session.scalar(text("select 1"))

    async with running(app), client(app) as http:
        assert (await http.get("/")).json() == 1
        own_postgres.stop("immediate")
        answer = await http.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"detail": "The database is unavailable. Please try again."}
        assert held(database) == 0


# Dependencies


async def test_an_override_replaces_the_session(sqlite_url: str) -> None:
    app, database = make(sqlite_url)

    @app.get("/")
    async def index(session: SessionDep, reader: ReadSessionDep) -> list[str]:
        return [str(session), str(reader)]

    app.dependency_overrides[get_session] = lambda: "a stand-in"
    app.dependency_overrides[get_read_session] = lambda: "another"
    async with running(app), client(app) as http:
        assert (await http.get("/")).json() == ["a stand-in", "another"]
    assert database.activity.snapshot().sessions_created == 0


async def test_everybody_in_a_request_gets_the_same_session(sqlite_url: str) -> None:
    app, _ = make(sqlite_url)
    seen: list[AsyncSession] = []

    async def of_the_router(session: SessionDep) -> None:
        seen.append(session)

    async def of_the_original(
        session: Annotated[AsyncSession, Depends(get_async_session)],
    ) -> AsyncSession:
        return session

    router = APIRouter(prefix="/papers", dependencies=[Depends(of_the_router)])

    @router.get("/")
    async def papers(
        request: Request,
        session: SessionDep,
        original: Annotated[AsyncSession, Depends(of_the_original)],
    ) -> None:
        seen.extend([session, original, await get_session(request)])

    app.include_router(router, dependencies=[Depends(of_the_router)])
    async with running(app), client(app) as http:
        assert (await http.get("/papers/")).status_code == 200
    assert len(seen) == 4  # FastAPI asks a dependency once a request
    assert len(set(map(id, seen))) == 1


async def test_the_read_session_refuses_to_write(database_url: str) -> None:
    app, _ = make(database_url)

    @app.get("/")
    async def index(session: ReadSessionDep) -> Any:
        with pytest.raises(ReadOnlySessionError):
            await write(session, "a note")
        return await session.scalar(text("select 7"))

    async with running(app), client(app) as http:
        assert (await http.get("/")).json() == 7


async def test_a_dependency_with_yield_may_stand_around_ours(database_url: str) -> None:
    app, database = make(database_url)
    ends: list[str] = []

    async def around(session: SessionDep) -> AsyncIterator[None]:
        try:
            yield
        except Exception as error:
            ends.append(type(error).__name__)
            raise
        finally:
            # Its end comes after the response, and the session is still there.
            ends.append(str(await session.scalar(text("select 1"))))

    @app.get("/fine", dependencies=[Depends(around)])
    async def fine(session: SessionDep) -> None:
        await write(session, "a note")

    @app.get("/refused", dependencies=[Depends(around)])
    async def refused(session: SessionDep) -> None:
        await write(session, "another")
        raise HTTPException(403)

    async with running(app), client(app) as http:
        assert (await http.get("/fine")).status_code == 200
        assert ends == ["1"]
        assert (await http.get("/refused")).status_code == 403
        assert ends == ["1", "HTTPException", "1"]
        assert await stored(database) == ["a note"]
        assert held(database) == 0


async def test_what_fails_after_the_session_was_used_releases_it(database_url: str) -> None:
    app, database = make(database_url)

    async def user(session: SessionDep) -> None:
        await write(session, "a note")

    async def guard(user: Annotated[None, Depends(user)]) -> None:
        raise HTTPException(403)

    @app.get("/guard", dependencies=[Depends(guard)])
    async def guarded() -> None: ...

    @app.get("/validation/{number}", dependencies=[Depends(user)])
    async def validated(number: int) -> None: ...

    async with running(app), client(app) as http:
        assert (await http.get("/guard")).status_code == 403
        assert (await http.get("/validation/none")).status_code == 422
        assert await stored(database) == []
        assert held(database) == 0


# Streams, background tasks, WebSockets


async def test_a_stream_uses_the_session_to_its_end(database_url: str) -> None:
    app, database = make(database_url)

    @app.get("/")
    async def stream(session: SessionDep) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for number in range(3):
                await write(session, f"note {number}")
                yield f"{number}\n"

        return StreamingResponse(body())

    async with running(app):
        left = await request(app, "/", leave_after=2)
        assert not left.complete
        assert await stored(database) == []
        complete = await request(app, "/")
        assert complete.body == b"0\n1\n2\n"
        assert len(await stored(database)) == 3
        assert held(database) == 0


@pytest.mark.parametrize("dependency", [get_session, get_async_session])
async def test_a_background_task_uses_the_session(
    database_url: str, dependency: Callable[..., Any]
) -> None:
    app, database = make(database_url)

    @app.get("/")
    async def index(
        tasks: BackgroundTasks, session: Annotated[AsyncSession, Depends(dependency)]
    ) -> None:
        tasks.add_task(write, session, "later")
        await write(session, "now")

    async with running(app), client(app) as http:
        assert (await http.get("/")).status_code == 200
        assert await stored(database) == ["later", "now"]
        assert held(database) == 0


@pytest.mark.parametrize("dependency", [get_session, get_async_session])
async def test_a_websocket_gets_a_session(
    database_url: str, dependency: Callable[..., Any]
) -> None:
    app, database = make(database_url)

    @app.websocket("/talk")
    async def talk(
        socket: WebSocket, session: Annotated[AsyncSession, Depends(dependency)]
    ) -> None:
        await socket.accept()
        async for word in socket.iter_text():
            await write(session, word)
            await socket.send_json(await session.scalar(select(notes.c.text)))

    async with running(app):
        socket = WebSocketClient(app, "/talk")
        await socket.receive()
        await socket.send("hello")
        assert await socket.receive_json() == "hello"
        await socket.leave()
        assert await socket.ended() is None
        assert await stored(database) == ["hello"]
        assert held(database) == 0


# Several databases, other session classes


async def test_a_database_of_another_name_has_dependencies_too(
    sqlite_url: str, postgres_url: str
) -> None:
    app, _ = make(sqlite_url)
    setup_database(app, DatabaseConfig(url=postgres_url, name="reports"), path="/reports-db")

    @app.get("/")
    async def index(
        session: Annotated[AsyncSession, Depends(SessionOf("reports"))],
        reader: Annotated[AsyncSession, Depends(ReadSessionOf("reports"))],
    ) -> list[str]:
        return [
            (await one.execute(text("show server_encoding"))).scalar_one()
            for one in (session, reader)
        ]

    async with running(app), client(app) as http:
        assert (await http.get("/")).json() == ["UTF8", "UTF8"]
        app.dependency_overrides[SessionOf("reports")] = FakeSession
        app.dependency_overrides[ReadSessionOf("reports")] = FakeSession
        assert (await http.get("/")).json() == ["fake", "fake"]


class FakeSession:
    """Answers everything with one word."""

    async def execute(self, statement: object) -> "FakeSession":
        return self

    def scalar_one(self) -> str:
        return "fake"


class Hero(SQLModel, table=True):
    """A table of SQLModel's."""

    id: int | None = Field(default=None, primary_key=True)
    name: str


async def test_sqlmodels_session_has_its_own_methods(database_url: str) -> None:
    app = FastAPI()
    setup_database(
        app,
        DatabaseConfig(url=database_url),
        commit="autocommit",
        metadata=SQLModel.metadata,
        create_all=True,
        session_class=SQLModelSession,
    )
    Session = Annotated[SQLModelSession, Depends(get_session)]  # noqa: N806 - a type

    @app.post("/heroes")
    async def add(hero: Hero, session: Session) -> Hero:
        session.add(hero)
        await session.flush()
        return hero

    @app.get("/heroes")
    async def heroes(session: Session) -> list[Hero]:
        return list(await session.exec(select_model(Hero)))

    async with running(app), client(app) as http:
        created = (await http.post("/heroes", json={"name": "Ada"})).json()
        assert created == {"id": 1, "name": "Ada"}
        assert (await http.get("/heroes")).json() == [created]
