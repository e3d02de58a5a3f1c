"""The contract's handlers in Litestar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from litestar import Litestar, Request, Response, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.response import Stream
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db.litestar import ReviewPointDBPlugin, get_session
from tests.contract.apps.handlers import (
    HANDLERS,
    RefusedError,
    Reply,
    add,
    converse,
    stream,
    stream_headers,
)
from tests.contract.apps.shared import MODE, OwnMiddleware, Probed, config

if TYPE_CHECKING:
    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler
    from litestar.types import ASGIApp

AnyRequest = Request[Any, Any, Any]


@post("/do/{name:str}", status_code=200)
async def do(name: str, request: AnyRequest, db_session: AsyncSession) -> Response[dict[str, Any]]:
    try:
        reply = await HANDLERS[name](db_session, request.query_params) or Reply()
    except RefusedError as refused:
        raise HTTPException(status_code=refused.status) from refused
    return Response(reply.data, status_code=reply.status)


@post("/read/{name:str}", status_code=200)
async def read(
    name: str, request: AnyRequest, db_read_session: AsyncSession
) -> Response[dict[str, Any]]:
    reply = await HANDLERS[name](db_read_session, request.query_params) or Reply()
    return Response(reply.data, status_code=reply.status)


@get("/stream/{name:str}")
async def streamed(name: str, request: AnyRequest, db_session: AsyncSession) -> Stream:
    pieces = stream(name, db_session, request.query_params)
    return Stream(pieces, headers=stream_headers(request.query_params))


@post("/background/{name:str}", status_code=200)
async def background(
    name: str, request: AnyRequest, db_session: AsyncSession
) -> Response[dict[str, Any]]:
    task = BackgroundTask(HANDLERS[name], db_session, request.query_params)
    return Response({}, background=task)


async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    await add(get_session(connection), connection.query_params["key"])
    raise HTTPException(status_code=403)


@post("/guarded", guards=[guard])
async def guarded(db_session: AsyncSession) -> None:
    raise NotImplementedError


async def added(request: AnyRequest, db_session: AsyncSession) -> int:
    await add(db_session, request.query_params["key"])
    return 1


async def failing(added: int) -> int:
    raise RuntimeError("the dependency failed")


@post("/dependent", dependencies={"added": Provide(added), "failing": Provide(failing)})
async def dependent(db_session: AsyncSession, failing: int) -> None:
    raise NotImplementedError


@post("/validated", dependencies={"added": Provide(added)})
async def validated(db_session: AsyncSession, added: int, number: int) -> None:
    raise NotImplementedError


@get("/cached/{name:str}", cache=60)
async def cached(name: str, request: AnyRequest, db_session: AsyncSession) -> dict[str, Any]:
    reply = await HANDLERS[name](db_session, request.query_params) or Reply()
    return reply.data


@websocket("/ws/{name:str}")
async def socket(name: str, socket: WebSocket[Any, Any, Any], db_session: AsyncSession) -> None:
    await converse(name, socket, db_session, socket.query_params)


def own_answer(_: AnyRequest, error: ProgrammingError) -> Response[dict[str, str]]:
    return Response({"own": type(error).__name__}, status_code=418)


def own_middleware(app: ASGIApp) -> ASGIApp:
    return cast("ASGIApp", OwnMiddleware(app))


plugin = ReviewPointDBPlugin(config(), commit=MODE)
litestar = Litestar(
    route_handlers=[
        do,
        read,
        streamed,
        background,
        guarded,
        dependent,
        validated,
        cached,
        socket,
    ],
    plugins=[plugin],
    middleware=[own_middleware],
    cors_config=CORSConfig(allow_origins=["*"]),
    exception_handlers={ProgrammingError: own_answer},
)
app = Probed(litestar, plugin.database)
