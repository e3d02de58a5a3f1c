"""What the three applications share: their settings, the probe, and the middleware of their own.

They are imported by a server process whose environment says what to serve:

| variable        | what it is                              |
|-----------------|-----------------------------------------|
| CONTRACT_URL    | the database                            |
| CONTRACT_COMMIT | "manual" or "autocommit"                |
| CONTRACT_POOL   | size, overflow and timeout: "2 1 1.5"   |
| CONTRACT_READ_URL | a replica, or not set      |
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.engine import elastic_pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from reviewpoint_db.database import Database
    from reviewpoint_db.transaction import CommitMode

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Application = Callable[[Any, Any, Any], Awaitable[None]]

MODE = cast("CommitMode", os.environ.get("CONTRACT_COMMIT", "manual"))

# Nothing may depend on the garbage collector.
gc.disable()

_cancel: ContextVar[Callable[[float], object] | None] = ContextVar("cancel", default=None)


def config() -> DatabaseConfig:
    """The settings, with limits that a test can wait for."""
    size, overflow, timeout = os.environ.get("CONTRACT_POOL", "2 1 1.5").split()
    return DatabaseConfig(
        url=os.environ["CONTRACT_URL"],
        read_url=os.environ.get("CONTRACT_READ_URL"),
        environment="test",
        pool=PoolConfig(
            size=int(size),
            max_overflow=int(overflow),
            timeout=float(timeout),
        ),
        connect_timeout=1.0,
        query_timeout=1.5,
        health_timeout=1.0,
    )


class OwnMiddleware:
    """The application's: a header on every answer, and a request that has itself cancelled."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        _cancel.set(lambda delay: loop.call_later(delay, task.cancel))

        async def send_with_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-own", b"middleware")]
            await send(message)

        await self.app(scope, receive, send_with_header)


def cancel_this_request(delay: float = 0.0) -> None:
    """Cancel the task of the running request after so many seconds."""
    cancel = _cancel.get()
    assert cancel is not None
    cancel(delay)


class Probed:
    """An application, with a page outside of everything: what its database holds at the moment."""

    def __init__(self, app: Application, database: Database) -> None:
        self.app = app
        self.database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/probe":
            await self.app(scope, receive, send)
            return
        body = json.dumps(self.look()).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def look(self) -> dict[str, int]:
        engine = self.database.existing_engine
        pool = None if engine is None else elastic_pool(engine)
        return {
            "checked_out": pool.checkedout() if pool else 0,
            "open": pool.total() if pool else 0,
            "waiting": pool.waiting() if pool else 0,
            "collecting": gc.isenabled(),
        }
