"""The contract's handlers in FastAPI."""

from __future__ import annotations

from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy.exc import ProgrammingError

from reviewpoint_db.fastapi import ReadSessionDep, SessionDep, setup_database
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

fastapi = FastAPI()


@fastapi.post("/do/{name}")
async def do(name: str, request: Request, session: SessionDep) -> Response:
    try:
        reply = await HANDLERS[name](session, request.query_params) or Reply()
    except RefusedError as refused:
        raise HTTPException(refused.status) from refused
    return JSONResponse(reply.data, reply.status)


@fastapi.post("/read/{name}")
async def read(name: str, request: Request, session: ReadSessionDep) -> Response:
    reply = await HANDLERS[name](session, request.query_params) or Reply()
    return JSONResponse(reply.data, reply.status)


@fastapi.get("/stream/{name}")
async def streamed(name: str, request: Request, session: SessionDep) -> Response:
    pieces = stream(name, session, request.query_params)
    return StreamingResponse(pieces, headers=stream_headers(request.query_params))


@fastapi.post("/background/{name}")
async def background(
    name: str, request: Request, session: SessionDep, tasks: BackgroundTasks
) -> dict[str, str]:
    tasks.add_task(HANDLERS[name], session, request.query_params)
    return {}


async def guard(request: Request, session: SessionDep) -> None:
    await add(session, request.query_params["key"])
    raise HTTPException(403)


@fastapi.post("/guarded", dependencies=[Depends(guard)])
async def guarded(session: SessionDep) -> None:
    raise NotImplementedError


async def added(request: Request, session: SessionDep) -> None:
    await add(session, request.query_params["key"])


async def failing(_: Annotated[None, Depends(added)]) -> None:
    raise RuntimeError("the dependency failed")


@fastapi.post("/dependent")
async def dependent(session: SessionDep, _: Annotated[None, Depends(failing)]) -> None:
    raise NotImplementedError


@fastapi.post("/validated")
async def validated(
    session: SessionDep, _: Annotated[None, Depends(added)], number: int
) -> dict[str, int]:
    return {"number": number}


@fastapi.websocket("/ws/{name}")
async def socket(name: str, websocket: WebSocket, session: SessionDep) -> None:
    await converse(name, websocket, session, websocket.query_params)


@fastapi.exception_handler(ProgrammingError)
async def own_answer(_: Request, error: ProgrammingError) -> Response:
    return JSONResponse({"own": type(error).__name__}, 418)


database = setup_database(fastapi, config(), commit=MODE)
fastapi.add_middleware(OwnMiddleware)
fastapi.add_middleware(CORSMiddleware, allow_origins=["*"])
app = Probed(fastapi, database)
