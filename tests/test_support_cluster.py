"""The cluster of the tests does what its methods say, on real servers."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support.postgres import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.cluster import PostgresCluster
    from tests.support.run import Run


@pytest.fixture(scope="module")
def cluster(run: Run) -> Iterator[PostgresCluster]:
    cluster = run.own_cluster("support", standbys=2, synchronous=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def url(cluster: PostgresCluster) -> Iterator[str]:
    """The URL, with all hosts, of a database with a table."""
    url = cluster.create_database("papers")
    cluster.primary.psql("CREATE TABLE papers (id int)", "papers")
    yield url
    cluster.primary.drop_database("papers")


def test_its_standbys_follow_and_refuse_writes(cluster: PostgresCluster, url: str) -> None:
    assert url.endswith("/papers")
    assert all(f"{HOST}:{server.port}" in url for server in cluster.servers)
    cluster.primary.psql("INSERT INTO papers VALUES (1)", "papers")
    cluster.catch_up()
    for standby in cluster.standbys:
        assert standby.psql("SELECT id FROM papers", "papers") == "1"
        with pytest.raises(subprocess.CalledProcessError) as refused:
            standby.psql("INSERT INTO papers VALUES (2)", "papers")
        assert "read-only" in refused.value.stderr


async def test_its_url_leads_to_the_primary(cluster: PostgresCluster, url: str) -> None:
    assert "target_session_attrs=read-write" in cluster.url(
        "papers", target_session_attrs="read-write"
    )
    connection = await asyncpg.connect(url, target_session_attrs="read-write")
    assert await connection.fetchval("SHOW port") == str(cluster.primary.port)
    await connection.close()


def test_paused_replay_holds_a_standby_back(cluster: PostgresCluster, url: str) -> None:
    cluster.catch_up()
    standby = cluster.standbys[0]
    cluster.pause_replay(cluster.servers.index(standby))
    cluster.primary.psql("INSERT INTO papers VALUES (1)", "papers")
    assert standby.psql("SELECT count(*) FROM papers", "papers") == "0"
    cluster.resume_replay(cluster.servers.index(standby))
    cluster.catch_up()
    assert standby.psql("SELECT count(*) FROM papers", "papers") == "1"


def test_an_orderly_switch_loses_nothing(cluster: PostgresCluster, url: str) -> None:
    old = cluster.primary
    target = cluster.servers.index(cluster.standbys[0])
    cluster.primary.psql("INSERT INTO papers VALUES (1)", "papers")
    cluster.switch_over(target)
    assert cluster.primary is cluster.servers[target]
    cluster.primary.psql("INSERT INTO papers VALUES (2)", "papers")
    cluster.catch_up()
    assert old.psql("SELECT count(*) FROM papers", "papers") == "2"
    assert old.psql("SELECT pg_is_in_recovery()") == "t"


@pytest.mark.parametrize("rewind", [True, False])
async def test_a_frozen_primary_is_replaced_and_rejoins(
    cluster: PostgresCluster, url: str, rewind: bool
) -> None:
    old = cluster.servers.index(cluster.primary)
    # What the old one has and nobody was told: it must be gone when it rejoins.
    lost = await asyncpg.connect(cluster.primary.url("papers"))
    for standby in cluster.standbys:
        standby.stop()
    waiting = asyncio.create_task(lost.execute("INSERT INTO papers VALUES (0)"))
    deadline = time.monotonic() + 10
    question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    while cluster.primary.psql(question) == "0":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    cluster.freeze(old)
    waiting.cancel()
    lost.terminate()
    await asyncio.gather(waiting, return_exceptions=True)
    for standby in cluster.standbys:
        standby.start()
    new = cluster.servers.index(cluster.standbys[0])
    cluster.promote(new)
    cluster.primary.psql("INSERT INTO papers VALUES (1)", "papers")
    cluster.rejoin(old, rewind=rewind)
    cluster.catch_up()
    seen = [
        server.psql("SELECT count(*), max(id) FROM papers", "papers") for server in cluster.servers
    ]
    assert seen == ["1|1"] * 3
    cluster.freeze(old)
    cluster.thaw(old)
    assert cluster.servers[old].psql("SELECT 1") == "1"


def test_it_stops_and_starts_with_its_roles(cluster: PostgresCluster, url: str) -> None:
    leader = cluster.primary
    cluster.stop()
    assert not any(server.running for server in cluster.servers)
    cluster.start()
    assert cluster.primary is leader
    cluster.primary.psql("INSERT INTO papers VALUES (1)", "papers")
