"""One application of the contract in a server process, with its database."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import asyncpg

from tests.contract.world import World
from tests.support.server import AsgiServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Adapter = Literal["litestar", "starlette", "fastapi"]
Mode = Literal["manual", "autocommit"]
Backend = Literal["postgresql", "sqlite"]

ADAPTERS: tuple[Adapter, ...] = ("litestar", "starlette", "fastapi")
MODES: tuple[Mode, ...] = ("manual", "autocommit")

#: What the garbage collector and the interpreter say about things that nobody ended.
LEFT_BEHIND = (
    "garbage collector",
    "was never awaited",
    "Task was destroyed",
    "ResourceWarning",
    "never retrieved",
)


class Kind(NamedTuple):
    """Which application."""

    adapter: Adapter
    mode: Mode
    backend: Backend = "postgresql"

    def __str__(self) -> str:
        return "-".join(self)

    def server(self, url: str, *, pool: str = "2 1 1.5", read_url: str | None = None) -> AsgiServer:
        """A process that serves it; not started yet."""
        replica = {"CONTRACT_READ_URL": read_url} if read_url else {}
        return AsgiServer(
            f"tests.contract.apps.{self.adapter}_app:app",
            env={
                "CONTRACT_URL": url,
                "CONTRACT_COMMIT": self.mode,
                "CONTRACT_POOL": pool,
                **replica,
            },
            options=("--no-access-log", "--log-level", "warning"),
        )


class Stack:
    """A running application and its database."""

    def __init__(self, kind: Kind, server: AsgiServer, database: World | Path) -> None:
        self.kind = kind
        self.server = server
        self.database = database

    async def rows(self, key: str) -> list[str]:
        """What is stored of one test's notes, without the key that they begin with."""
        if isinstance(self.database, World):
            async with self._admin() as admin:
                found = await admin.fetch("SELECT key FROM notes WHERE starts_with(key, $1)", key)
                keys = [row["key"] for row in found]
        else:
            with closing(sqlite3.connect(self.database)) as admin:
                query = "SELECT key FROM notes WHERE key LIKE ? || '%'"
                keys = [row[0] for row in admin.execute(query, (key,))]
        return sorted(found.removeprefix(key).strip() for found in keys)

    async def open_transactions(self) -> list[str]:
        """Sessions that hold a transaction open and do nothing."""
        if isinstance(self.database, World):
            async with self._admin() as admin:
                return [
                    f"{row['state']}: {row['query']}"
                    for row in await admin.fetch(
                        "SELECT state, query FROM pg_stat_activity"
                        " WHERE state LIKE 'idle in transaction%'"
                    )
                ]
        with closing(sqlite3.connect(self.database, timeout=0)) as admin:
            try:
                admin.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return [str(error)]
            return []

    async def queries(self, pattern: str) -> list[str]:
        """Statements that run now."""
        async with self._admin() as admin:
            found = await admin.fetch(
                "SELECT query FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1"
                " AND pid <> pg_backend_pid()",
                pattern,
            )
            return [row["query"] for row in found]

    async def execute(self, statement: str) -> None:
        """Do something as another client of the server."""
        async with self._admin() as admin:
            await admin.execute(statement)

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        assert isinstance(self.database, World)
        admin = await asyncpg.connect(self.database.direct_url, timeout=5, command_timeout=5)
        try:
            yield admin
        finally:
            await admin.close()
