"""Small applications in each framework, built from the environment as a user's are."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from litestar import Litestar, get, post
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from reviewpoint_db import Database, ReviewPointDBPlugin
from reviewpoint_db.fastapi import SessionDep
from reviewpoint_db.fastapi import setup_database as setup_fastapi
from reviewpoint_db.starlette import get_session
from reviewpoint_db.starlette import setup_database as setup_starlette
from tests.support.notes import notes, write, write_orphan

TEXTS = select(notes.c.text).order_by(notes.c.text)


async def add(session: AsyncSession, text: str) -> None:
    await (write_orphan if text == "orphan" else write)(session, text)
    await session.commit()


async def texts(session: AsyncSession) -> list[str]:
    return list(await session.scalars(TEXTS))


def litestar_app(**plugin: Any) -> Litestar:
    @post("/notes/{text:str}", status_code=201)
    async def create(text: FromPath[str], db_session: NamedDependency[AsyncSession]) -> list[str]:
        await add(db_session, text)
        return await texts(db_session)

    @get("/notes")
    async def listed(db_session: NamedDependency[AsyncSession]) -> list[str]:
        return await texts(db_session)

    @get("/read")
    async def read(db_read_session: NamedDependency[AsyncSession]) -> list[str]:
        return await texts(db_read_session)

    @post("/later/{text:str}", status_code=201)
    async def later(text: FromPath[str], database: NamedDependency[Database]) -> Response[None]:
        async def work() -> None:
            async with database.session() as session:
                await add(session, text)

        return Response(None, background=BackgroundTask(work))

    database_plugin = ReviewPointDBPlugin(**plugin)
    return Litestar([create, listed, read, later], plugins=[database_plugin])


def starlette_app() -> Starlette:
    async def create(request: Request) -> JSONResponse:
        session = get_session(request)
        await add(session, request.path_params["text"])
        return JSONResponse(await texts(session), 201)

    async def listed(request: Request) -> JSONResponse:
        return JSONResponse(await texts(get_session(request)))

    routes = [Route("/notes/{text}", create, methods=["POST"]), Route("/notes", listed)]
    app = Starlette(routes=routes)
    setup_starlette(app)
    return app


def fastapi_app() -> FastAPI:
    app = FastAPI()
    setup_fastapi(app)

    @app.post("/notes/{text}", status_code=201)
    async def create(text: str, session: SessionDep) -> list[str]:
        await add(session, text)
        return await texts(session)

    @app.get("/notes")
    async def listed(session: SessionDep) -> list[str]:
        return await texts(session)

    return app
