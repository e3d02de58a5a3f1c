"""The contract's handlers in Starlette."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import ProgrammingError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from reviewpoint_db.starlette import get_read_session, get_session, setup_database
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
    from starlette.requests import Request
    from starlette.websockets import WebSocket


async def do(request: Request) -> Response:
    handler = HANDLERS[request.path_params["name"]]
    try:
        reply = await handler(get_session(request), request.query_params) or Reply()
    except RefusedError as refused:
        raise HTTPException(refused.status) from refused
    return JSONResponse(reply.data, reply.status)


async def read(request: Request) -> Response:
    handler = HANDLERS[request.path_params["name"]]
    reply = await handler(get_read_session(request), request.query_params) or Reply()
    return JSONResponse(reply.data, reply.status)


async def streamed(request: Request) -> Response:
    name = request.path_params["name"]
    pieces = stream(name, get_session(request), request.query_params)
    return StreamingResponse(pieces, headers=stream_headers(request.query_params))


async def background(request: Request) -> Response:
    handler = HANDLERS[request.path_params["name"]]
    task = BackgroundTask(handler, get_session(request), request.query_params)
    return JSONResponse({}, background=task)


async def guarded(request: Request) -> Response:
    """What a guard does in the other frameworks."""
    await add(get_session(request), request.query_params["key"])
    raise HTTPException(403)


async def dependent(request: Request) -> Response:
    """What a later dependency does in the other frameworks."""
    await add(get_session(request), request.query_params["key"])
    raise RuntimeError("the dependency failed")


async def validated(request: Request) -> Response:
    await add(get_session(request), request.query_params["key"])
    try:
        int(request.query_params["number"])
    except ValueError as error:
        raise HTTPException(422) from error
    return JSONResponse({})


async def socket(websocket: WebSocket) -> None:
    name = websocket.path_params["name"]
    await converse(name, websocket, get_session(websocket), websocket.query_params)


async def own_answer(_: Request, error: Exception) -> Response:
    return JSONResponse({"own": type(error).__name__}, 418)


starlette = Starlette(
    routes=[
        Route("/do/{name}", do, methods=["POST"]),
        Route("/read/{name}", read, methods=["POST"]),
        Route("/stream/{name}", streamed),
        Route("/background/{name}", background, methods=["POST"]),
        Route("/guarded", guarded, methods=["POST"]),
        Route("/dependent", dependent, methods=["POST"]),
        Route("/validated", validated, methods=["POST"]),
        WebSocketRoute("/ws/{name}", socket),
    ],
    middleware=[Middleware(CORSMiddleware, allow_origins=["*"]), Middleware(OwnMiddleware)],
    exception_handlers={ProgrammingError: own_answer},
)
database = setup_database(starlette, config(), commit=MODE)
app = Probed(starlette, database)
