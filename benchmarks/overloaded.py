"""Serves reads that sleep in the database, so that the pool is what limits it, and no core is."""

from __future__ import annotations

import os

from loguru import logger
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from benchmarks.shedding import CONNECTIONS, WORK
from reviewpoint_db import DatabaseConfig, PoolConfig
from reviewpoint_db.starlette import get_read_session, setup_database

logger.remove()  # a line for each refusal would measure the log


async def sleep(request: Request) -> PlainTextResponse:
    """Hold a connection for a while."""
    await get_read_session(request).execute(text("select pg_sleep(:work)"), {"work": WORK})
    return PlainTextResponse("slept")


app = Starlette(routes=[Route("/", sleep)])
setup_database(
    app,
    DatabaseConfig(
        url=os.environ["BENCH_URL"],
        pool=PoolConfig(
            size=CONNECTIONS,
            max_overflow=0,
            queue_target=float(os.environ["BENCH_QUEUE_TARGET"]),
        ),
    ),
)
