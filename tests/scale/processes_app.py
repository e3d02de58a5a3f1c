"""What the servers of test_processes.py serve; preloading imports it, and uses its database, before the fork."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from litestar import Litestar, get
from litestar.di import NamedDependency
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db import Database, ReviewPointDBPlugin
from reviewpoint_db.telemetry import instrument


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


@asynccontextmanager
async def reported(app: Litestar) -> AsyncIterator[None]:
    """Report to OpenTelemetry, each process for itself, into files of the folder that is named."""
    folder = os.environ.get("REPORTS")
    if folder is None:
        yield
        return
    # Only now: it takes a while to import, and most tests do not need it.
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        ConsoleMetricExporter,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.resources import Resource

    with (Path(folder) / f"{os.getpid()}.json").open("w") as file:
        reader = PeriodicExportingMetricReader(
            ConsoleMetricExporter(file, lambda data: data.to_json(indent=None) + "\n"),
            export_interval_millis=200,
        )
        worker = Resource.create({"service.name": "papers", "service.instance.id": os.getpid()})
        provider = MeterProvider([reader], resource=worker)
        stop_reporting = instrument(app.state.databases["default"], provider)
        yield
        stop_reporting()
        provider.shutdown()


app = Litestar([who, slow, stuck], plugins=[ReviewPointDBPlugin()], lifespan=[reported])

if os.environ.get("CONNECT_AT_IMPORT"):
    # An application that asks its database while it is imported: preloaded, this is before the fork.
    async def _ask() -> None:
        database: Database = app.state.databases["default"]
        async with database.session() as session:
            await session.execute(text("select 1"))

    asyncio.run(_ask())
