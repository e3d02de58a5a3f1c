"""COMMIT: before the first byte, and a failed one is answered as the error that it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.contract.kinds import everywhere, kinds, on_postgresql

if TYPE_CHECKING:
    from tests.contract.case import Case, Seen
    from tests.contract.world import World

MAY_BE_STORED = "may have been stored"
# With its semicolon, since "BEGIN ISOLATION LEVEL READ COMMITTED" is none.
COMMIT = "COMMIT;"


@everywhere
async def test_a_success_is_stored(case: Case) -> None:
    await case.proves(await case.post("/do/store"), status=200, stored=[""])


@everywhere
async def test_a_redirect_is_stored(case: Case) -> None:
    await case.proves(await case.post("/do/store-and-redirect"), status=303, stored=[""])


@everywhere
async def test_a_deferred_constraint_that_fails_at_commit_is_a_409(case: Case) -> None:
    seen = await case.post("/do/orphan")
    await case.proves(seen, status=409, logged="IntegrityError")
    # The application's own middleware and CORS had their say.
    assert seen.headers["x-own"] == "middleware"
    assert seen.headers["access-control-allow-origin"] == "*"


@on_postgresql
async def test_a_commit_that_the_server_makes_a_rollback_is_no_success(case: Case) -> None:
    """As after an error that the driver met alone, in a COPY say: SQLAlchemy knows nothing of it."""
    seen = await case.post("/do/fail-unseen")
    await case.proves(seen, status=500)
    assert "Nothing was stored" in case.log


@on_postgresql
@pytest.mark.parametrize("code", ["40001", "40P01"])
async def test_a_collision_at_commit_is_a_503(case: Case, code: str) -> None:
    seen = await case.post("/do/store", at_commit=f"raise {code}")
    await case.proves(seen, status=503, logged=code)
    assert seen.headers["x-own"] == "middleware"


@on_postgresql
async def test_of_a_write_skew_one_request_succeeds_and_the_other_gets_a_503(case: Case) -> None:
    pair = await asyncio.gather(
        case.post("/do/skewed", key=f"{case.key} 1", pair=case.key),
        case.post("/do/skewed", key=f"{case.key} 2", pair=case.key),
    )
    loser, winner = sorted(pair, key=lambda seen: -seen.status)
    assert winner.status == 200
    await case.proves(loser, status=503, stored=[str(pair.index(winner) + 1)])


@on_postgresql
async def test_of_a_deadlock_one_request_succeeds_and_the_other_gets_a_503(case: Case) -> None:
    pair = await asyncio.gather(
        case.post("/do/deadlocked", key=f"{case.key} 1", pair=case.key, locks="1 2"),
        case.post("/do/deadlocked", key=f"{case.key} 2", pair=case.key, locks="2 1"),
    )
    loser, winner = sorted(pair, key=lambda seen: -seen.status)
    assert winner.status == 200
    await case.proves(loser, status=503, stored=[str(pair.index(winner) + 1)])


@on_postgresql
async def test_whoever_has_a_2xx_finds_the_row(case: Case) -> None:
    async with case.raw("POST", "/do/store", at_commit="sleep 0.3") as request:
        status, _ = await request.head()
        assert await case.stack.rows(case.key) == [""]
    assert status == 200
    await case.proves(None, stored=[""])


@on_postgresql
async def test_the_applications_own_handler_answers_errors_of_commit(case: Case) -> None:
    seen = await case.post("/do/store", at_commit="raise 42501")
    await case.proves(seen, status=418)
    assert seen.data == {"own": "ProgrammingError"}
    assert seen.headers["x-own"] == "middleware"
    assert seen.headers["access-control-allow-origin"] == "*"


@on_postgresql
async def test_the_applications_own_handler_answers_errors_of_the_handler(case: Case) -> None:
    seen = await case.post("/do/missing-table")
    await case.proves(seen, status=418)
    assert seen.data == {"own": "ProgrammingError"}


def _unknown(seen: Seen) -> None:
    assert MAY_BE_STORED in seen.body
    assert "retry-after" not in seen.headers


@on_postgresql
async def test_a_connection_lost_after_commit_was_sent_may_have_stored_it(
    case: Case, faults: World
) -> None:
    faults.relay.at(COMMIT, "cut answer")
    seen = await case.post("/do/store")
    _unknown(seen)
    await case.proves(seen, status=500, stored=[""])


@on_postgresql
async def test_a_connection_lost_before_the_server_saw_commit_may_have_stored_it_too(
    case: Case, faults: World
) -> None:
    faults.relay.at(COMMIT, "cut")
    seen = await case.post("/do/store")
    _unknown(seen)
    await case.proves(seen, status=500)


@on_postgresql
async def test_a_commit_that_is_not_answered_in_time_may_have_stored_it(
    case: Case, faults: World
) -> None:
    faults.relay.at(COMMIT, "hold answer")
    seen = await case.post("/do/store")
    _unknown(seen)
    faults.relay.drop()
    await case.proves(seen, status=500, stored=[""])


@on_postgresql
async def test_a_request_cancelled_during_commit_may_have_stored_it(case: Case) -> None:
    seen = await case.post("/do/cancelled-in-commit")
    _unknown(seen)
    await case.rests()
    await case.proves(seen, status=500, stored=await case.stack.rows(case.key))


@on_postgresql
async def test_a_server_that_crashes_during_commit_may_have_stored_it(
    case: Case, faults: World
) -> None:
    request = asyncio.create_task(case.post("/do/store", at_commit="sleep 5"))
    await case.until_running("COMMIT%")
    faults.postgres.restart("immediate")
    seen = await request
    _unknown(seen)
    await case.proves(seen, status=500)


@on_postgresql
async def test_failed_commits_use_up_no_connections(case: Case) -> None:
    answers = await asyncio.gather(
        *(case.post("/do/orphan", key=f"{case.key} {n}") for n in range(8))
    )
    assert {answer.status for answer in answers} == {409}
    await case.proves(await case.post("/do/store"), status=200, stored=[""])


@kinds(adapters=("litestar",), modes=("autocommit",))
async def test_a_cached_route_caches_no_error_of_commit(case: Case) -> None:
    assert (await case.get("/cached/orphan")).status == 409
    # The same URL again: the handler runs, so nothing was cached.
    assert (await case.get("/cached/orphan")).status == 409
    await case.proves(await case.get("/cached/store"), status=200, stored=[""])
    # From the cache: a second insert would have been a conflict.
    await case.proves(await case.get("/cached/store"), status=200, stored=[""])
