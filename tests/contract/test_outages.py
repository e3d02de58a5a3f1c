"""The server restarts, freezes, is down or has no room: bounded waits, clear answers, recovery."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.contract.kinds import everywhere, on_postgresql
from tests.contract.world import through

if TYPE_CHECKING:
    from tests.contract.case import Case, Seen
    from tests.contract.world import World


async def _fill(case: Case, requests: int) -> None:
    """Have the pool open some connections."""
    answers = await asyncio.gather(
        *(case.post("/do/store-slowly", key=f"other{case.key[6:]} {n}", seconds=0.1)
          for n in range(requests))
    )  # fmt: skip
    assert {answer.status for answer in answers} == {200}


@on_postgresql
async def test_after_a_restart_no_request_in_sequence_fails(case: Case, faults: World) -> None:
    await _fill(case, 3)
    faults.postgres.restart("immediate")
    answers = [await case.post("/do/store", key=f"{case.key} {n}") for n in range(20)]
    assert [answer.status for answer in answers] == [200] * 20, case.log
    await case.proves(answers[0], status=200, stored=map(str, range(20)))


@on_postgresql
async def test_after_a_restart_no_request_at_once_fails(case: Case, faults: World) -> None:
    await _fill(case, 3)
    faults.postgres.restart("immediate")
    answers = await asyncio.gather(
        *(case.post("/do/store", key=f"{case.key} {n}") for n in range(20))
    )
    assert [answer.status for answer in answers] == [200] * 20, case.log
    await case.proves(answers[0], status=200, stored=map(str, range(20)))


@on_postgresql
async def test_a_restart_behind_a_silent_network_is_noticed_by_the_ping(
    case: Case, faults: World
) -> None:
    await _fill(case, 3)
    # The connection dies at its next use, whatever that is: a ping, or the request's own BEGIN.
    faults.relay.at("", "cut")
    await asyncio.sleep(0.6)  # beyond ping_after_idle
    seen = await case.post("/do/store")
    await case.proves(seen, status=200, stored=[""])


@on_postgresql
async def test_a_restart_with_a_request_in_flight_is_a_503(case: Case, faults: World) -> None:
    request = asyncio.create_task(case.post("/do/query-slowly", seconds=1.2))
    await case.until_running("SELECT pg_sleep%")
    faults.postgres.restart("immediate")
    await case.proves(await request, status=503)


async def _in_time(case: Case) -> tuple[Seen, Seen, Seen]:
    """Ask for two pages and the health route; the client's own limit is beyond all of ours."""
    return await asyncio.gather(
        case.post("/do/store"), case.post("/read/count"), case.get("/db/health")
    )


def _unavailable(answers: tuple[Seen, Seen, Seen]) -> None:
    store, read, health = answers
    if through() == "replica":
        assert read.status == 200, read  # the standby is not concerned
    else:
        assert read.status == 503, read
        assert read.headers["retry-after"] == "1"
    assert store.status == health.status == 503, answers
    assert store.headers["retry-after"] == "1"
    assert health.data["status"] == "unhealthy"


@on_postgresql
@pytest.mark.parametrize("pool", ["warm", "cold"])
async def test_a_frozen_server_is_a_503_in_time(case: Case, faults: World, pool: str) -> None:
    if pool == "warm":
        await _fill(case, 3)
    else:
        faults.relay.drop()
    faults.postgres.freeze()
    _unavailable(await _in_time(case))
    faults.postgres.thaw()
    await case.works()
    await case.proves(None)


@on_postgresql
async def test_a_network_that_swallows_everything_is_a_503_in_time(
    case: Case, faults: World
) -> None:
    await _fill(case, 3)
    faults.relay.blackhole()
    _unavailable(await _in_time(case))
    faults.relay.restore()
    await case.works()
    await case.proves(None)


@on_postgresql
async def test_a_server_that_is_down_is_a_503_and_comes_back_by_itself(
    case: Case, faults: World
) -> None:
    faults.postgres.stop("immediate")
    _unavailable(await _in_time(case))
    faults.postgres.start()
    await case.works()
    await case.proves(await case.post("/do/store"), status=200, stored=[""])


@on_postgresql
async def test_a_network_that_refuses_is_a_503_and_comes_back_by_itself(
    case: Case, faults: World
) -> None:
    faults.relay.refuse()
    faults.relay.drop(reset=True)
    _unavailable(await _in_time(case))
    faults.relay.restore()
    await case.works()
    await case.proves(await case.post("/do/store"), status=200, stored=[""])


@on_postgresql
async def test_a_short_outage_is_waited_out(case: Case, faults: World) -> None:
    faults.relay.refuse()
    faults.relay.drop()
    request = asyncio.create_task(case.post("/do/store"))

    async def tried() -> bool:
        return (await case.probe())["waiting"] > 0

    await case.until(tried, "a request that waits")
    faults.relay.restore()
    await case.proves(await request, status=200, stored=[""])


@everywhere
async def test_an_exhausted_pool_is_a_503_and_health_tells_which_of_the_two_it_is(
    case: Case,
) -> None:
    # On SQLite one writes and the others wait for the lock: all hold their connection.
    # Where there is a standby, read sessions have a pool of their own.
    path = "/do/hold" if through() == "replica" else "/read/hold"
    holding = [asyncio.create_task(case.post(path, key=f"other{n}", seconds=3)) for n in range(3)]
    await case.until_held(3)
    seen, health = await asyncio.gather(case.post("/do/store"), case.get("/db/health"))
    assert health.status == 200
    await asyncio.gather(*holding)
    await case.proves(seen, status=503)
