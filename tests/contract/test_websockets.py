"""WebSockets: stored or rolled back by how they end, and released however they do."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from tests.contract.kinds import everywhere

if TYPE_CHECKING:
    from tests.contract.case import Case


async def _close_code(case: Case, name: str) -> int:
    """Talk until the server closes."""
    async with asyncio.timeout(30), case.socket(f"/ws/{name}") as socket:
        assert await socket.recv() == "added"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    # uvicorn cuts the connection, without a close frame, where the application sent none.
    return 1006 if closed.value.rcvd is None else closed.value.rcvd.code


@everywhere
async def test_a_normal_close_is_stored_before_the_client_sees_it(case: Case) -> None:
    async with case.socket("/ws/close") as socket:
        assert await socket.recv() == "added"
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert await case.stack.rows(case.key) == [""]
    await case.proves(None, stored=[""])


@everywhere
async def test_a_handler_that_returns_is_stored(case: Case) -> None:
    await _close_code(case, "return")
    await case.until_stored("")
    await case.proves(None, stored=[""])


@everywhere
async def test_a_close_with_an_error_rolls_back(case: Case) -> None:
    assert await _close_code(case, "refuse") == 4000
    await case.proves(None)


@everywhere
async def test_a_failed_commit_closes_with_1011(case: Case) -> None:
    code = await _close_code(case, "orphan")
    if case.autocommit:  # else the handler's own COMMIT raises in the handler
        assert code == 1011
    await case.proves(None)


@everywhere
async def test_an_exception_rolls_back(case: Case) -> None:
    assert await _close_code(case, "crash") != 1000
    await case.proves(None)


@everywhere
async def test_a_client_that_leaves_abruptly_is_rolled_back(case: Case) -> None:
    async with case.socket("/ws/wait") as socket:
        assert await socket.recv() == "added"
        socket.transport.abort()
    await case.proves(None)


@everywhere
async def test_a_handler_that_catches_the_disconnect_is_stored(case: Case) -> None:
    async with case.socket("/ws/catch") as socket:
        assert await socket.recv() == "added"
        socket.transport.abort()
    await case.until_stored("")
    await case.proves(None, stored=[""])


@everywhere
async def test_many_sockets_use_up_no_connections(case: Case) -> None:
    for _ in range(5):
        async with case.socket("/ws/wait") as socket:
            assert await socket.recv() == "added"
            socket.transport.abort()
    await case.proves(await case.post("/do/store"), status=200, stored=[""])
