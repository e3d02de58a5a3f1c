"""From a start without a database to a stop with a request in flight, in processes of their own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.contract.case import PATIENCE, Case, client_of
from tests.contract.stack import ADAPTERS, LEFT_BEHIND, MODES, Kind, Stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.contract.world import World

KINDS = [Kind(adapter, mode) for adapter in ADAPTERS for mode in MODES]
lifecycles = pytest.mark.parametrize("kind", KINDS, ids=str)


@asynccontextmanager
async def _running(kind: Kind, world: World, url: str | None = None) -> AsyncIterator[Case]:
    """A process for one test; it is stopped by the test."""
    with kind.server(url or world.url) as server:
        async with client_of(server) as http:
            yield Case(Stack(kind, server, world), http)


def _backends(world: World, pid: int) -> list[str]:
    """The sessions of one process; our `application_name` ends with its id."""
    sessions = world.postgres.sessions("contract")
    return [one.application_name for one in sessions if one.application_name.endswith(f":{pid}")]


async def _stop(case: Case) -> None:
    """Stop the process and look at what it leaves."""
    server = case.stack.server
    await asyncio.to_thread(server.stop)
    assert server.process.returncode in {0, -15}, server.log
    assert not [text for text in LEFT_BEHIND if text in server.log], server.log


@lifecycles
async def test_it_starts_without_a_database_and_stops_with_a_request_in_flight(
    kind: Kind, world: World
) -> None:
    world.postgres.stop("immediate")
    try:
        async with _running(kind, world) as case:
            answers = await asyncio.gather(
                case.post("/do/store"), case.post("/read/count"), case.get("/db/health")
            )
            assert [seen.status for seen in answers] == [503, 503, 503]
            assert (await case.get("/db/health/ready")).status == 503
            assert (await case.get("/db/health/live")).status == 200
            world.repair()
            await case.works()
            assert (await case.get("/db/health")).status == 200

            pid = case.stack.server.process.pid
            request = asyncio.create_task(case.post("/do/query-slowly", seconds=0.8))
            await case.until_running("SELECT pg_sleep%")
            assert _backends(world, pid)
            await _stop(case)
            assert (await request).status == 200
            assert await case.stack.rows(case.key) == [""]
            # PgBouncer keeps the server's connections for whoever comes next.
            assert world.bouncer or not _backends(world, pid)
    finally:
        world.repair()


@lifecycles
async def test_it_stops_in_time_when_the_server_is_silent(kind: Kind, world: World) -> None:
    async with _running(kind, world) as case:
        assert (await case.post("/do/store")).status == 200
        world.postgres.freeze()
        try:
            await asyncio.wait_for(_stop(case), 2 * PATIENCE)
        finally:
            world.repair()


@lifecycles
async def test_a_wrong_password_is_a_500_that_shows_none(kind: Kind, world: World) -> None:
    wrong = world.relay.url(world.postgres.url("contract", password="hunter2"))
    async with _running(kind, world, wrong) as case:
        seen = await case.post("/do/store")
        await case.proves(seen, status=500)
        assert "hunter2" not in seen.body + case.stack.server.log
        assert "28P01" in case.log
        assert (await case.get("/db/health")).status == 503
        await _stop(case)
