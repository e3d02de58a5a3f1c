"""WebSockets whose database is unavailable: 503 in place of the handshake, 1013 after it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.contract.kinds import everywhere, on_postgresql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.contract.case import Case

UNAVAILABLE = "The database is unavailable. Please try again."


@asynccontextmanager
async def full_pool(case: Case) -> AsyncIterator[None]:
    """All connections are out while the block runs."""
    size = 3  # pool="2 1 1.5"
    sockets = [await case.socket("/ws/wait", key=f"other{n}") for n in range(size)]
    try:
        for socket in sockets:
            assert await socket.recv() == "added"
        await case.until_held(size)
        yield
    finally:
        for socket in sockets:
            socket.transport.abort()


async def _refused(case: Case) -> None:
    """The handshake is answered as a request would be."""
    async with asyncio.timeout(20):
        with pytest.raises(InvalidStatus) as refused:
            await case.socket("/ws/first")
    response = refused.value.response
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert UNAVAILABLE.encode() in response.body
    assert case.key.encode() not in response.body


@on_postgresql
async def test_a_handshake_that_finds_the_pool_full_is_a_503(case: Case) -> None:
    async with full_pool(case):
        await _refused(case)
        await case.until_logged("answered with 503")
        assert case.log.count("answered with 503") == 1
        assert "Traceback" not in case.log
    await case.proves(None)


@on_postgresql
async def test_an_open_websocket_that_finds_the_pool_full_is_closed_with_1013(case: Case) -> None:
    async with full_pool(case), asyncio.timeout(20), case.socket("/ws/close") as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, UNAVAILABLE)
    await case.proves(None)


@everywhere
async def test_a_handshake_that_finds_its_database_is_accepted(case: Case) -> None:
    async with case.socket("/ws/first") as socket:
        assert await socket.recv() == "added"
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    await case.until_stored("")
    await case.proves(None, stored=[""])
