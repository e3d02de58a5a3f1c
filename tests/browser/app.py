"""An application in which things go wrong on demand; environment: REVIEWPOINT_DB_URL."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, get, patch, post
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from reviewpoint_db import Database, DatabaseConfig, PoolConfig, ReviewPointDBPlugin

#: A name that would be markup, if it were not shown as text.
ODD_TABLE = "<script>alert(1)</script>"
HOURS = 3600.0
_kept: list[Any] = []


async def send_mail() -> None:
    """What should not be done while a transaction is open."""
    await asyncio.sleep(HOURS)


async def render_report() -> None:
    await asyncio.sleep(HOURS)


@get("/quick")
async def quick(db_session: AsyncSession) -> dict[str, int]:
    return {"papers": (await db_session.execute(text("select count(*) from papers"))).scalar_one()}


@get("/odd")
async def odd(db_session: AsyncSession) -> dict[str, int]:
    rows = await db_session.execute(text(f'select count(*), pg_sleep(0.6) from "{ODD_TABLE}"'))
    return {"rows": rows.scalar_one()}


@get("/slow")
async def slow(db_session: AsyncSession) -> None:
    await db_session.execute(text("select title from papers"))
    await render_report()


@get("/leak")
async def leak(database: Database) -> None:
    async def forgetful() -> None:
        connection: AsyncConnection = await database.engine.connect()
        await connection.execute(text("select title from papers"))
        _kept.append(connection)

    await asyncio.create_task(forgetful(), name="forgetful")


@patch("/papers/{paper_id:int}")
async def change_paper(paper_id: int, db_session: AsyncSession) -> None:
    await db_session.execute(
        text("update papers set title = 'changed' where id = :id"), {"id": paper_id}
    )
    await send_mail()


@post("/reviews")
async def add_review(db_session: AsyncSession) -> None:
    await db_session.execute(text("select title from papers where id = 7 for update"))


@get("/block")
async def block() -> None:
    """What should not be done in an event loop."""
    folder = Path(os.environ["XDG_RUNTIME_DIR"])
    (folder / f"blocked-{os.getpid()}").touch()
    while not (folder / "release").exists():
        time.sleep(0.05)  # noqa: ASYNC251 - that is the point


async def prepare(app: Litestar) -> None:
    database: Database = app.state.databases["default"]
    async with database.session() as session:
        # Two workers start at once.
        await session.execute(text("select pg_advisory_xact_lock(1)"))
        await session.execute(text("create table if not exists papers (id int, title text)"))
        await session.execute(text(f'create table if not exists "{ODD_TABLE}" (id int)'))
        await session.execute(
            text(
                "insert into papers select n, 'a title' from generate_series(1, 9) n "
                "where not exists (select from papers)"
            )
        )
        await session.commit()


app = Litestar(
    [quick, odd, slow, leak, change_paper, add_review, block],
    plugins=[
        ReviewPointDBPlugin(
            msgspec.structs.replace(
                DatabaseConfig.from_env(),
                pool=PoolConfig(size=5, max_overflow=0, timeout=60.0),
                query_timeout=60.0,
            )
        )
    ],
    on_startup=[prepare],
)
