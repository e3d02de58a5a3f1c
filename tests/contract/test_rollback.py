"""A request that did not end in success is rolled back, whatever kept it from that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.contract.kinds import everywhere, kinds

if TYPE_CHECKING:
    from tests.contract.case import Case


@everywhere
@pytest.mark.parametrize("status", [409, 303, 200])
async def test_an_http_error_rolls_back(case: Case, status: int) -> None:
    """Whatever the client is told of it: the handler did not end."""
    await case.proves(await case.post("/do/refuse", status=status), status=status)


@everywhere
async def test_any_other_exception_rolls_back(case: Case) -> None:
    await case.proves(await case.post("/do/crash"), status=500)


@everywhere
@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_a_returned_error_rolls_back(case: Case, status: int) -> None:
    seen = await case.post("/do/add-only", status=status)
    assert seen.status == status
    await case.proves(None)


@kinds(modes=("manual",), backends=("postgresql", "sqlite"))
async def test_in_manual_mode_nothing_is_stored_that_the_handler_did_not_commit(
    case: Case,
) -> None:
    seen = await case.post("/do/add-only")
    await case.proves(seen, status=200, logged="left changes uncommitted")
    line = next(line for line in case.log.splitlines() if "left changes uncommitted" in line)
    # The handler's name, with its route where the framework tells that (Starlette since 0.50), and
    # no parameter of its path.
    assert re.search(r"POST (/do/\{name\S* )?\S*do answered with success", line)
    assert case.key not in line


@everywhere
async def test_a_handler_that_closes_its_session_learns_that_its_changes_are_lost(
    case: Case,
) -> None:
    seen = await case.post("/do/close-early")
    await case.proves(seen, status=200, logged="closed its session with changes uncommitted")


@everywhere
async def test_a_guard_that_refuses_gives_its_session_back(case: Case) -> None:
    await case.proves(await case.post("/guarded"), status=403)


@everywhere
async def test_a_later_dependency_that_fails_gives_the_session_back(case: Case) -> None:
    await case.proves(await case.post("/dependent"), status=500)


@everywhere
async def test_a_validation_that_fails_gives_the_session_back(case: Case) -> None:
    seen = await case.post("/validated", number="none")
    # Litestar's own answer repeats the URL, which bears the key here.
    assert seen.status == (400 if case.kind.adapter == "litestar" else 422)
    await case.proves(None)
