"""CPU time that a session adds to a request, in this process and without a database.

Each contender's application answers the same requests, in shuffled turns; the figure is the median
of the differences to a bare handler in the same round.
"""

from __future__ import annotations

import asyncio
import gc
import random
import tempfile
from functools import partial
from statistics import median
from typing import Final

from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from litestar import Litestar, get
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.wire import request, timed
from reviewpoint_db import DatabaseConfig, ReviewPointDBPlugin

_REQUESTS: Final = 100


@get("/bare")
async def bare() -> None:
    """Do nothing."""


@get("/commit")
async def commit(db_session: AsyncSession) -> None:
    """Commit the injected session, which nothing was done with."""
    await db_session.commit()


def overhead(rounds: int) -> dict[str, dict[str, float]]:
    """Return microseconds per contender: "with a session" and "without a session"."""
    gc.collect()
    gc.disable()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return asyncio.run(_measure(rounds, folder))
    finally:
        gc.enable()


async def _measure(rounds: int, folder: str) -> dict[str, dict[str, float]]:
    apps = {
        "bare": Litestar([bare], openapi_config=None),
        "advanced-alchemy": Litestar(
            [bare, commit],
            plugins=[
                SQLAlchemyPlugin(
                    SQLAlchemyAsyncConfig(connection_string="sqlite+aiosqlite:///:memory:")
                )
            ],
            openapi_config=None,
        ),
        "reviewpoint_db": Litestar(
            [bare, commit],
            plugins=[
                ReviewPointDBPlugin(
                    DatabaseConfig(url=f"sqlite:///{folder}/bench.sqlite3", environment="prod"),
                    debug_token="b" * 32,
                )
            ],
            openapi_config=None,
        ),
    }
    works = {
        ("bare", "without"): partial(request, apps["bare"], "GET", "/bare"),
        **{
            (name, what): partial(request, apps[name], "GET", path)
            for name in ("advanced-alchemy", "reviewpoint_db")
            for what, path in (("with", "/commit"), ("without", "/bare"))
        },
    }
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in works}
    async with apps["advanced-alchemy"].lifespan(), apps["reviewpoint_db"].lifespan():
        for work in works.values():
            await timed(work, _REQUESTS)
        for _ in range(rounds):
            for key in random.sample(list(works), len(works)):
                taken[key].append(await timed(works[key], _REQUESTS))
            gc.collect()
    floor = taken["bare", "without"]
    return {
        name: {
            f"{what} a session": median(
                mine - bare for mine, bare in zip(taken[name, what], floor, strict=True)
            )
            for what in ("with", "without")
        }
        for name in ("advanced-alchemy", "reviewpoint_db")
    }
