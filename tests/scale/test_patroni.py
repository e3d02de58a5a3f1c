"""Under Patroni, with synchronous replication: a switchover and a crash lose no acknowledged row."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.apps import tables
from tests.support.patroni import PatroniCluster
from tests.support.writers import writing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.run import Run


@pytest.fixture
def patroni(run: Run) -> Iterator[PatroniCluster]:
    folder = Path(tempfile.mkdtemp(prefix="patroni-", dir=run.folder))
    folder.chmod(0o755)
    with PatroniCluster(folder) as cluster:
        yield cluster
    shutil.rmtree(folder, ignore_errors=True)


async def test_a_switchover_and_a_crash_lose_no_acknowledged_row(patroni: PatroniCluster) -> None:
    first = patroni.leader()
    assert first is not None
    first.create_database("contract")
    first.psql(tables.POSTGRESQL, "contract")
    async with writing(patroni.url("contract")) as writers:
        await writers.go_on_after(time.monotonic(), within=20)
        second = await asyncio.to_thread(patroni.switch_over)
        await writers.go_on_after(time.monotonic(), within=5)
        await asyncio.to_thread(patroni.settle)
        await writers.go_on_after(time.monotonic(), within=5)
        second.kill()
        third = await asyncio.to_thread(patroni.await_other, second)
        await writers.go_on_after(time.monotonic(), within=5)
        patroni.start(second)
        await asyncio.to_thread(patroni.settle)
        await writers.go_on_after(time.monotonic(), within=5)
    stored = third.psql("SELECT key FROM notes", "contract").split("\n")
    assert not set(writers.stored) - set(stored)
    assert writers.refused
