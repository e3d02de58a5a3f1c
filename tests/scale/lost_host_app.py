"""What test_lost_host.py runs on the other host: a line of its input is a work, one of its output the answer.

python -m tests.scale.lost_host_app URL SERVER_SETTINGS
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from sqlalchemy import text

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database

PID = text("SELECT pg_backend_pid()")
SLOW = text("SELECT repeat('x', 100000) FROM pg_sleep(1.5), generate_series(1, 200)")


def tell(**what: Any) -> None:
    """Answer."""
    print(json.dumps(what), flush=True)  # noqa: T201


async def hold(database: Database) -> None:
    """Have a row locked, in a transaction in which nothing happens."""
    async with database.session() as session:
        await session.execute(text("INSERT INTO notes VALUES (1)"))
        tell(pid=await session.scalar(PID))
        await asyncio.sleep(60)


async def compute(database: Database) -> None:
    """Have the server compute, and send more than a buffer holds."""
    async with database.session() as session:
        tell(pid=await session.scalar(PID))
        await session.execute(SLOW)


async def ask(database: Database) -> None:
    """Run a statement, and tell how long it took and why it failed."""
    started, error = time.monotonic(), None
    try:
        async with database.session() as session:
            await session.execute(text("SELECT 1"))
    except Exception as raised:  # noqa: BLE001 - whatever it is, it is the answer
        error = type(raised).__name__
    tell(error=error, seconds=time.monotonic() - started)


async def main(url: str, server_settings: str) -> None:
    """Do one work after the other."""
    config = DatabaseConfig(
        url=url,
        environment="test",
        connect_timeout=1,
        query_timeout=1 if server_settings == "{}" else 30,
        pool=PoolConfig(size=1, max_overflow=0, timeout=2, ping_after_idle=60),
        engine_options={"connect_args": {"server_settings": json.loads(server_settings)}},
    )
    async with Database(config) as database:
        while line := await asyncio.to_thread(sys.stdin.readline):
            await {"hold": hold, "compute": compute, "ask": ask}[line.strip()](database)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
