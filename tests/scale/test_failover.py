"""Under load a primary fails and another takes over: no acknowledged row is lost, writes go on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from tests.contract.apps import tables
from tests.support.writers import writing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import PostgresCluster
    from tests.support.run import Run

#: Seconds after the promotion within which twenty rows must be stored.
WITHIN = 5.0


@pytest.fixture(params=[18])
def cluster(run: Run, request: pytest.FixtureRequest) -> Iterator[PostgresCluster]:
    cluster = run.own_cluster("failover", synchronous=True, version=request.param)
    try:
        cluster.start()
        cluster.create_database("contract")
        cluster.primary.psql(tables.POSTGRESQL, "contract")
        yield cluster
    finally:
        cluster.remove()


def lost(cluster: PostgresCluster, stored: dict[str, float]) -> set[str]:
    """What was acknowledged and is not there."""
    return set(stored) - set(cluster.primary.psql("SELECT key FROM notes", "contract").split("\n"))


async def test_ten_promotions_in_a_row_lose_no_acknowledged_row(cluster: PostgresCluster) -> None:
    """In turn a crash and an orderly shutdown; each time writes go on within `WITHIN` seconds."""
    pauses = []
    async with writing(cluster.url("contract")) as writers:
        for turn in range(10):
            await writers.go_on_after(time.monotonic(), within=20)
            old = cluster.servers.index(cluster.primary)
            server = cluster.primary
            await asyncio.to_thread(server.stop if turn % 2 else server.kill)
            await asyncio.to_thread(cluster.promote, 1 - old)
            pauses.append(await writers.go_on_after(time.monotonic(), within=WITHIN))
            assert not lost(cluster, dict(writers.stored)), f"promotion {turn}"
            await asyncio.to_thread(cluster.rejoin, old, rewind=turn % 5 != 4)
    assert not lost(cluster, writers.stored)
    assert writers.refused, "no client noticed anything"
    assert len(pauses) == 10


@pytest.mark.parametrize("cluster", [16], indirect=True)
async def test_a_frozen_primary_does_not_hold_new_connections_back(
    cluster: PostgresCluster,
) -> None:
    """query_timeout, here 1.5 s, cuts what was sent to it; the new one is found half a second later."""
    async with writing(cluster.url("contract"), clients=4) as writers:
        await writers.go_on_after(time.monotonic(), within=20)
        await asyncio.to_thread(cluster.freeze, 0)
        await asyncio.to_thread(cluster.promote, 1)
        await writers.go_on_after(time.monotonic(), within=WITHIN)
        await asyncio.to_thread(cluster.rejoin, 0)
    assert not lost(cluster, writers.stored)
