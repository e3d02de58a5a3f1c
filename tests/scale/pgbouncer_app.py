"""An application whose every answer tells whether it is right, for a soak through PgBouncer.

| variable        | what it is                                    |
|-----------------|-----------------------------------------------|
| SOAK_URL        | the database                                  |
| SOAK_PGBOUNCER  | "yes", "no", or empty to find out             |
| SOAK_SHAPES     | how many different statements read            |
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sqlalchemy import text
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.starlette import get_read_session, get_session, setup_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

#: Different statements that answer differently: one that gets another's is noticed.
SHAPES = int(os.environ["SOAK_SHAPES"])


async def read(request: Request) -> JSONResponse:
    """Numbers by a statement of its own shape, outside of any transaction."""
    number = int(request.path_params["number"])
    shape = number % SHAPES
    columns = ", ".join(f"cast(:n as int) + {shape}" for _ in range(shape + 1))
    row = await get_read_session(request).execute(text(f"SELECT {columns}"), {"n": number})
    return JSONResponse([*row.one()])


async def write(request: Request) -> JSONResponse:
    """A row, stored before the answer, and read again in the same transaction."""
    number = int(request.path_params["number"])
    session = get_session(request)
    await session.execute(text("INSERT INTO soak (n) VALUES (:n)"), {"n": number})
    found = await session.scalar(text("SELECT max(n) FROM soak WHERE n = :n"), {"n": number})
    return JSONResponse(found)


async def refuse(request: Request) -> JSONResponse:
    """A row that must not be stored."""
    number = -int(request.path_params["number"])
    await get_session(request).execute(text("INSERT INTO soak (n) VALUES (:n)"), {"n": number})
    raise HTTPException(418)


async def stream(request: Request) -> StreamingResponse:
    """Rows by a cursor of the server."""
    number = int(request.path_params["number"])
    session = get_read_session(request)

    async def lines() -> AsyncIterator[str]:
        query = text("SELECT cast(:n as int) + i FROM generate_series(1, 200) AS i")
        async for value in await session.stream_scalars(query, {"n": number}):
            yield f"{value}\n"

    return StreamingResponse(lines())


_DECLARED = {"yes": True, "no": False}

app = Starlette(
    routes=[
        Route("/read/{number}", read),
        Route("/write/{number}", write, methods=["POST"]),
        Route("/refuse/{number}", refuse, methods=["POST"]),
        Route("/stream/{number}", stream),
    ]
)
database = setup_database(
    app,
    DatabaseConfig(
        url=os.environ["SOAK_URL"],
        environment="test",
        pgbouncer=_DECLARED.get(os.environ.get("SOAK_PGBOUNCER", "")),
        connect_timeout=2.0,
        query_timeout=5.0,
    ),
    commit="autocommit",
)
