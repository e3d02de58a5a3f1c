"""Tests that each write through HTTP: the sandbox against the ways that people isolate tests by.

Each way does for one test what its fixtures would do, around the same request. `python -m
benchmarks.sandbox` prints it alone.
"""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import ExitStack
from statistics import median
from typing import Any, Final

from litestar import Litestar, post
from litestar.di import NamedDependency
from litestar.testing import TestClient
from loguru import logger
from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db import Database, DatabaseConfig, ReviewPointDBPlugin
from reviewpoint_db.testing.kit import Kit
from reviewpoint_db.testing.schema import Schema
from reviewpoint_db_pytest.run import Run

METADATA: Final = MetaData()
NOTES: Final = Table(
    "notes",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("text", String(100), unique=True, nullable=False),
)
#: As large as an application's, so that making tables costs what it does there.
OTHERS: Final = [
    Table(
        f"other_{n}",
        METADATA,
        Column("id", Integer, primary_key=True),
        *(Column(f"c{i}", String(100), index=i < 2) for i in range(8)),
    )
    for n in range(20)
]
SANDBOX: Final = "sandbox"
CLONE: Final = "a clone a test"
DIRECT: Final = "no isolation"


_numbers: Final = itertools.count()


@post("/write")
async def write(db_session: NamedDependency[AsyncSession]) -> None:
    """Write a row."""
    await db_session.execute(insert(NOTES).values(text=str(next(_numbers))))
    await db_session.commit()


class Bed:
    """A kit outside of pytest, and an application that runs on it."""

    def __init__(self, server_url: str) -> None:
        self.run = Run.create()
        self.kit = Kit(self.run, server_url)
        self.url = self.kit.worker_database(Schema(METADATA))
        self.admin = Database(DatabaseConfig(url=self.url, environment="test"))
        self.kit.redirect.spare(self.admin, self.admin.config)
        app = Litestar([write], plugins=[ReviewPointDBPlugin()], logging_config=None)
        self.client = TestClient(app)

    def request(self) -> float:
        """Send the request that every test sends, and return its seconds."""
        started = time.perf_counter()
        answer = self.client.post("/write")
        seconds = time.perf_counter() - started
        assert answer.status_code == 201, answer.text
        return seconds

    def execute(self, *statements: Any) -> None:
        self.kit.owner.run(self._execute(statements))

    async def _execute(self, statements: Any) -> None:
        async with self.admin.engine.begin() as connection:
            for statement in statements:
                if callable(statement):
                    await connection.run_sync(statement)
                else:
                    await connection.exec_driver_sql(statement)

    def close(self) -> None:
        self.kit.owner.run(self.admin.stop())
        self.kit.close()
        self.run.close()


def sandbox(server_url: str, tests: int = 1000) -> dict[str, dict[str, float]]:
    """Return milliseconds by way: of a `test`, the `first` request in it, the `next`, and the rest.

    Args:
        server_url: A PostgreSQL server's, whose user may create databases.
        tests: How many tests of the sandbox; of the slower ways as many as take as long.
    """
    bed = Bed(server_url)
    tables = ", ".join(f'"{table.name}"' for table in METADATA.sorted_tables)
    try:
        with bed.client:
            ways = {
                DIRECT: (tests, lambda: _around(bed, "DELETE FROM notes")),
                SANDBOX: (tests, lambda: _within(bed, bed.kit.sandbox("the benchmark"))),
                "truncate after each": (tests // 4, lambda: _around(bed, f"TRUNCATE {tables}")),
                "drop and create tables": (
                    tests // 20,
                    lambda: _around(bed, METADATA.drop_all, METADATA.create_all),
                ),
                CLONE: (tests // 20, lambda: _within(bed, bed.kit.clone())),
            }
            return {name: _measure(count, way) for name, (count, way) in ways.items()}
    finally:
        bed.close()


def _measure(count: int, way: Any) -> dict[str, float]:
    taken: list[tuple[float, float, float]] = []
    for _ in range(max(count, 3)):
        started = time.perf_counter()
        first, following = way()
        taken.append((time.perf_counter() - started, first, following))
    return {
        "test": median(whole for whole, _, _ in taken) * 1000,
        "first": median(first for _, first, _ in taken) * 1000,
        "next": median(following for _, _, following in taken) * 1000,
        "isolation": median(whole - sum(requests) for whole, *requests in taken) * 1000,
    }


def _within(bed: Bed, isolation: Any) -> tuple[float, float]:
    with ExitStack() as stack:
        stack.enter_context(isolation)
        return bed.request(), bed.request()


def _around(bed: Bed, *cleaning: Any) -> tuple[float, float]:
    seconds = bed.request(), bed.request()
    bed.execute(*cleaning)
    return seconds


def main() -> None:
    from tests.support.run import Run as ServerRun

    logger.remove()
    tests = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    run = ServerRun.create()
    try:
        server = run.own_server()
        server.start()
        found = sandbox(server.create_database("bench"), tests)
    finally:
        run.close()
    whole = found[SANDBOX]["test"]
    print(
        f"{'milliseconds':24}{'test':>8}{'first':>8}{'next':>8}{'isolation':>11}{'test, to sandbox':>18}"
    )
    for name, of in found.items():
        print(
            f"{name:24}{of['test']:8.1f}{of['first']:8.1f}{of['next']:8.1f}{of['isolation']:11.1f}"
            f"{of['test'] / whole:17.1f}x"
        )
    added = found[SANDBOX]["next"] - found[DIRECT]["next"]
    print(f"the sandbox adds {added:.1f} ms to a session (target <= 3)")
    print(f"a clone is made and dropped in {found[CLONE]['isolation']:.1f} ms (target <= 60)")


if __name__ == "__main__":
    main()
