"""What a handler can ask of its session: an isolation level, or a session that only reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.contract.kinds import everywhere, on_postgresql

if TYPE_CHECKING:
    from tests.contract.case import Case


@on_postgresql
async def test_an_isolation_level_of_the_request_takes_effect(case: Case) -> None:
    seen = await case.post("/do/isolated")
    await case.proves(seen, status=200, stored=[""])
    assert seen.data == {"level": "serializable"}


@everywhere
async def test_a_read_session_reads_what_is_stored(case: Case) -> None:
    await case.post("/do/store")
    await case.until_replicated()
    seen = await case.post("/read/count")
    await case.proves(seen, status=200, stored=[""])
    assert seen.data == {"count": 1}


@everywhere
async def test_a_read_session_refuses_to_write(case: Case) -> None:
    await case.proves(await case.post("/read/add-only"), status=500)
