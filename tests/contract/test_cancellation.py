"""Requests that are cancelled, give a query up, or share their session among tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.contract.kinds import everywhere, on_postgresql

if TYPE_CHECKING:
    from tests.contract.case import Case


@on_postgresql
async def test_a_request_cancelled_in_a_query_is_rolled_back(case: Case) -> None:
    seen = await case.post("/do/cancelled-in-query")
    await case.proves(seen, status=500)
    assert not await case.stack.queries("SELECT pg_sleep(30)")


@everywhere
async def test_a_request_cancelled_in_python_code_is_rolled_back(case: Case) -> None:
    await case.proves(await case.post("/do/cancelled-in-python"), status=500)


@on_postgresql
async def test_a_session_is_usable_after_a_query_was_given_up(case: Case) -> None:
    seen = await case.post("/do/given-up")
    await case.proves(seen, status=200, stored=[""])
    assert seen.data == {"timed_out": True}
    for number in range(4):
        assert (await case.post("/do/store", key=f"{case.key} {number}")).status == 200
    await case.proves(seen, status=200, stored=["", "0", "1", "2", "3"])


@everywhere
async def test_tasks_that_share_a_session_succeed_or_get_a_clear_error(case: Case) -> None:
    seen = await case.post("/do/gathered")
    assert seen.status in {200, 500, 503}
    await case.proves(seen, status=seen.status, stored=[""] if seen.status == 200 else [])
    await case.proves(
        await case.post("/do/count"), status=200, stored=await case.stack.rows(case.key)
    )
