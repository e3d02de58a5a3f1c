"""The log lines: levels, timings, handlers, no credentials, no cost when off."""

from __future__ import annotations

import subprocess
import sys
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from reviewpoint_db import default
from reviewpoint_db.asgi import UnitOfWorkMiddleware
from reviewpoint_db.config import PoolConfig
from tests.support.asgi import client
from tests.support.default import config_of, current, shown


async def test_the_timings_of_a_session_are_logged_at_the_originals_levels(
    on_both: Any, log: list[str]
) -> None:
    async with default.get_async_session():
        pass
    for beginning in (
        "INFO Initializing global engine and sessionmaker",
        "INFO Starting engine creation",
        "INFO Engine created successfully in 0.",
        "INFO After creation - Worker: main",
        "DEBUG Session created in 0.",
        "DEBUG Connection test passed in 0.",
        "DEBUG Session closed",
        "DEBUG Session completed in 0.",
    ):
        assert len(shown(log, beginning)) == 1, beginning


async def test_lines_carry_the_handler_and_request_id(on_sqlite: Any, log: list[str]) -> None:
    default.ensure_engine_initialized()
    app = FastAPI()

    @app.get("/papers")
    async def papers() -> str:
        async with default.get_async_session():
            return "done"

    stack = UnitOfWorkMiddleware(
        app, current(), commit="manual", origin=lambda scope: "GET /papers list_papers"
    )
    async with client(stack) as http:
        await http.get("/papers", headers={"x-request-id": "r-17"})
    (line,) = shown(log, "DEBUG Session completed")
    assert line.endswith("for GET /papers list_papers [r-17]")


OFF = """
import asyncio, sys
from loguru import logger
from reviewpoint_db import default, default_log, logs

asked = []
default_log.describe_origin = lambda: asked.append(1)
logger.remove()

async def use():
    async with default.get_async_session():
        pass
    assert await default.db_healthcheck()
    await default.stop()

default.configure(default.DatabaseConfig(url=sys.argv[1]))
logger.add(print, level="ERROR")
asyncio.run(use())
assert not asked, "below the level of every sink"
logger.add(print, level="DEBUG")
logs.disable()
asyncio.run(use())
assert not asked, "switched off"
logs.enable()
asyncio.run(use())
assert asked
"""


def test_a_line_that_is_off_is_not_formatted(sqlite_url: str) -> None:
    code = OFF.replace("default.DatabaseConfig", "__import__('reviewpoint_db').DatabaseConfig")
    subprocess.run([sys.executable, "-c", code, sqlite_url], check=True, timeout=60)


HOSTILE = st.text(alphabet=st.sampled_from("@:/%?#[]'\" \\&=+aü€"), min_size=1, max_size=8).map(
    lambda text: f"s3c{text}ret"
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(password=HOSTILE, in_query=st.booleans())
async def test_no_password_is_in_a_log_line_or_an_error(
    fresh: Any, log: list[str], password: str, in_query: bool
) -> None:
    log.clear()
    quoted = quote(password, safe="")
    where = f"ann@127.0.0.1:1/db?password={quoted}" if in_query else f"ann:{quoted}@127.0.0.1:1/db"
    config = config_of(f"postgresql://{where}", pool=PoolConfig(timeout=0.01))
    default._state.__init__()  # type: ignore[misc]
    default.configure(config)
    told = [repr(config)]
    try:
        async with default.get_async_session():
            pass
    except SQLAlchemyError as error:
        told += [str(error), repr(error)]
    assert await default.db_healthcheck() is False
    told += [repr(default.get_connection_debug_info()), repr(await current().health()), *log]
    await default.stop()
    assert len(log) > 10
    for secret in (password, quoted):
        assert secret not in "".join(told)
