"""What the servers of test_processes.py serve; preloading imports it, and uses its database, before the fork."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from litestar import Litestar, get
from litestar.di import NamedDependency
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db import Database, ReviewPointDBPlugin


@get("/who")
async def who(db_session: NamedDependency[AsyncSession]) -> dict[str, Any]:
    row = (
        await db_session.execute(
            text(
                "select pid, application_name, current_setting('tcp_keepalives_idle')::int"
                " from pg_stat_activity where pid = pg_backend_pid()"
            )
        )
    ).one()
    await asyncio.sleep(0.05)
    return {"process": os.getpid(), "backend": row[0], "name": row[1], "idle": row[2]}


@get("/slow")
async def slow(db_session: NamedDependency[AsyncSession]) -> dict[str, int]:
    await db_session.execute(text("select 'held' , pg_sleep(1.5)"))
    await db_session.commit()
    return {"process": os.getpid()}


@get("/stuck")
async def stuck(db_session: NamedDependency[AsyncSession]) -> None:
    """A transaction that is open, and idle, for as long as the process lives."""
    await db_session.execute(text("select 'stuck'"))
    await asyncio.sleep(60)


app = Litestar([who, slow, stuck], plugins=[ReviewPointDBPlugin()])

if os.environ.get("CONNECT_AT_IMPORT"):
    # An application that asks its database while it is imported: preloaded, this is before the fork.
    async def _ask() -> None:
        database: Database = app.state.databases["default"]
        async with database.session() as session:
            await session.execute(text("select 1"))

    asyncio.run(_ask())
