"""What a database error is to the client and in the log: the right status, and no values."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.contract.kinds import everywhere, kinds, on_postgresql

if TYPE_CHECKING:
    from tests.contract.case import Case
    from tests.contract.world import World


@everywhere
async def test_a_unique_violation_is_a_409_without_values(case: Case) -> None:
    seen = await case.post("/do/duplicate")
    await case.proves(seen, status=409)
    assert "duplicate" not in seen.body
    # Driver DETAIL: "Key (key)=(...) already exists."
    assert "already exists" not in case.log


# By SQLSTATE: what the client is told when a statement fails, and when COMMIT does.
ANSWERS = {
    "23502": 409,
    "23503": 409,
    "23514": 409,
    "23P01": 409,
    "40001": 503,
    "40P01": 503,
    "53300": 503,
    "55P03": 503,
    "25006": 503,
    "57P03": 503,
    "08006": 503,
    "22012": 500,
    "P0001": 500,
    "XX000": 500,
}


@on_postgresql
@pytest.mark.parametrize(("code", "status"), ANSWERS.items(), ids=ANSWERS)
async def test_a_statement_fails_with_a_code(case: Case, code: str, status: int) -> None:
    seen = await case.post("/do/fail", code=code)
    assert "made to fail" not in seen.body
    await case.proves(seen, status=status)


@on_postgresql
@pytest.mark.parametrize(("code", "status"), ANSWERS.items(), ids=ANSWERS)
async def test_a_stream_of_rows_fails_with_a_code(case: Case, code: str, status: int) -> None:
    seen = await case.post("/do/fail-in-a-stream", code=code)
    assert "made to fail" not in seen.body
    await case.proves(seen, status=status)


# 08006, a lost connection, is of another kind at COMMIT; the others are what they are.
AT_COMMIT = {code: status for code, status in ANSWERS.items() if code[:2] not in {"08", "57"}}


@on_postgresql
@pytest.mark.parametrize(("code", "status"), AT_COMMIT.items(), ids=AT_COMMIT)
async def test_commit_fails_with_a_code(case: Case, code: str, status: int) -> None:
    seen = await case.post("/do/store", at_commit=f"raise {code}")
    assert "made to fail" not in seen.body
    await case.proves(seen, status=status)


@on_postgresql
async def test_a_value_that_the_driver_refuses_is_not_shown(case: Case) -> None:
    await case.proves(await case.post("/do/bad-value"), status=500)


@kinds(backends=("sqlite",))
async def test_a_missing_table_names_the_migration_command_in_the_log(case: Case) -> None:
    seen = await case.post("/do/missing-table")
    await case.proves(seen, status=500, logged="database upgrade")


@on_postgresql
async def test_a_terminated_backend_is_a_503(case: Case) -> None:
    request = asyncio.create_task(case.post("/do/query-slowly", seconds=1.2))
    await case.until_running("SELECT pg_sleep%")
    await case.stack.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    )
    await case.proves(await request, status=503)


@on_postgresql
async def test_a_connection_that_a_handler_left_busy_fails_one_request_at_most(case: Case) -> None:
    """Only the driver knows of a statement that went around SQLAlchemy, and tells it when asked."""
    await case.post("/do/leave-driver-busy")
    statuses = [(await case.post("/do/count")).status for _ in range(3)]
    assert statuses == [503, 200, 200]
    await case.proves(None)


@on_postgresql
async def test_a_connection_cut_before_commit_is_a_503(case: Case, faults: World) -> None:
    request = asyncio.create_task(case.post("/do/query-slowly", seconds=1.2))
    await case.until_running("SELECT pg_sleep%")
    faults.relay.drop(reset=True)
    await case.proves(await request, status=503)


@on_postgresql
async def test_a_statement_beyond_its_time_limit_is_a_503(case: Case) -> None:
    await case.proves(await case.post("/do/query-slowly", seconds=4), status=503)
