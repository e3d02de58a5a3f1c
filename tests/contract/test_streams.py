"""Streams and background tasks use the session after the response has begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.contract.kinds import everywhere, kinds, on_postgresql

if TYPE_CHECKING:
    from tests.contract.case import Case

PIECES = ["0", "1", "2", "3", "4"]
#: Bytes of all pieces.
LENGTH = 60


@everywhere
async def test_a_stream_that_writes_is_stored_at_its_end(case: Case) -> None:
    seen = await case.get("/stream/whole")
    assert seen.complete
    assert seen.body.count("rows") == 5
    await case.proves(seen, status=200, stored=PIECES)


@everywhere
async def test_the_end_of_a_stream_leaves_after_its_commit(case: Case) -> None:
    async with case.raw("GET", "/stream/whole") as request:
        assert (await request.head())[0] == 200
        while await request.piece() is not None:
            pass
        assert await case.stack.rows(case.key) == PIECES
    await case.proves(None, stored=PIECES)


@everywhere
async def test_many_streams_use_up_no_connections(case: Case) -> None:
    for number in range(6):
        assert (await case.get("/stream/whole", number=number)).complete is (number == 0)
    await case.proves(await case.post("/do/count"), status=200, stored=PIECES)


@everywhere
async def test_a_stream_that_breaks_is_cut_short_and_rolled_back(case: Case) -> None:
    seen = await case.get("/stream/break")
    assert not seen.complete
    await case.proves(seen, status=200)


@everywhere
async def test_a_stream_whose_commit_fails_is_cut_short(case: Case) -> None:
    seen = await case.get("/stream/orphan")
    assert not seen.complete
    await case.proves(seen, status=200)


@kinds(modes=("autocommit",), backends=("postgresql", "sqlite"))
async def test_a_stream_of_a_told_length_whose_commit_fails_is_cut_short(case: Case) -> None:
    """Its client has the whole response with the last byte, not with the end of the stream."""
    seen = await case.get("/stream/orphan", length=LENGTH)
    assert not seen.complete
    await case.proves(seen, status=200)


@kinds(modes=("autocommit",), backends=("postgresql", "sqlite"))
async def test_a_stream_of_a_told_length_is_stored(case: Case) -> None:
    seen = await case.get("/stream/whole", length=LENGTH)
    assert seen.complete
    assert len(seen.body) == LENGTH
    assert await case.stack.rows(case.key) == PIECES
    await case.proves(seen, status=200, stored=PIECES)


@everywhere
async def test_a_stream_whose_client_leaves_is_rolled_back(case: Case) -> None:
    async with case.raw("GET", "/stream/linger") as request:
        assert (await request.head())[0] == 200
        assert await request.piece()
        await case.until_held(1)
        await request.abort()
    await case.proves(None)


@everywhere
async def test_a_background_task_is_stored(case: Case) -> None:
    seen = await case.post("/background/store")
    await case.until_stored("")
    await case.proves(seen, status=200, stored=[""])


@everywhere
async def test_many_background_tasks_use_up_no_connections(case: Case) -> None:
    for number in range(6):
        seen = await case.post("/background/store", key=f"{case.key} {number}")
        assert seen.status == 200
    await case.until_stored(*PIECES, "5")
    await case.proves(seen, status=200, stored=[*PIECES, "5"])


@everywhere
async def test_a_commit_that_fails_after_a_background_task_is_logged(case: Case) -> None:
    seen = await case.post("/background/orphan")
    await case.until_logged("IntegrityError")
    await case.proves(seen, status=200)


@everywhere
async def test_a_background_task_that_fails_is_rolled_back(case: Case) -> None:
    seen = await case.post("/background/crash")
    await case.until_logged("crashed")
    await case.proves(seen, status=200)


@on_postgresql
async def test_a_client_that_leaves_in_a_query_does_not_stop_the_handler(case: Case) -> None:
    async with case.raw("POST", "/do/query-slowly", seconds=0.5) as request:
        await case.until_running("SELECT pg_sleep%")
        await request.abort()
    await case.proves(None, stored=[""])


@everywhere
async def test_a_client_that_leaves_in_python_code_does_not_stop_the_handler(case: Case) -> None:
    async with case.raw("POST", "/do/store-slowly", seconds=0.5) as request:
        await case.until_held(1)
        await request.abort()
    await case.proves(None, stored=[""])
