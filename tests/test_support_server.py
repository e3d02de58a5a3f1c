"""The server process starts, stops and tells; the raw client sees what goes over the socket."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import h11
import httpx
import pytest

from tests.support.server import AsgiServer, RawRequest, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = """
import asyncio, os
gone = []

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            print(kind, flush=True)
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    await receive()
    path = scope["path"]
    headers = [] if path == "/cut" else [(b"content-length", b"5")]
    if path == "/cut":
        headers = [(b"transfer-encoding", b"chunked")]
    body = {"/env": os.environ.get("COLOUR", "none!").encode(), "/gone": b"%5d" % len(gone)}
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path == "/cut":
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        raise RuntimeError("cut")
    if path == "/wait":
        await receive()
        gone.append(path)
        return
    data = body.get(path, b"hello")
    await send({"type": "http.response.body", "body": data})

async def never(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await asyncio.sleep(3600)

async def broken(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "out of luck"})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "served_app.py").write_text(APP)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[AsgiServer]:
    env = {"PYTHONPATH": str(folder), "COLOUR": "green"}
    with AsgiServer("served_app:app", env=env) as server:
        yield server


def test_it_serves_with_the_environment_it_was_given(server: AsgiServer) -> None:
    assert httpx.get(f"{server.url}/env").text == "green"


def test_it_starts_and_stops_the_lifespan_and_keeps_the_log(folder: Path) -> None:
    with AsgiServer("served_app:app", env={"PYTHONPATH": str(folder)}) as server:
        assert httpx.get(server.url).text == "hello"
        server.stop()
        assert "lifespan.startup\n" in server.log
        assert "lifespan.shutdown\n" in server.log
        assert not server.running
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_a_failed_start_is_an_error_with_the_log(folder: Path) -> None:
    env = {"PYTHONPATH": str(folder)}
    with pytest.raises(ServerError, match="out of luck"), AsgiServer("served_app:broken", env=env):
        pass


def test_a_start_without_end_is_an_error(folder: Path) -> None:
    server = AsgiServer("served_app:never", env={"PYTHONPATH": str(folder)}, start_timeout=1.5)
    with pytest.raises(ServerError, match="did not start in time"), server:
        pass
    assert not server.running


def test_the_runners_own_variables_do_not_reach_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWPOINT_DB_URL", "sqlite://")
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    (folder / "environ_app.py").write_text(
        "import os\nprint('ENV', sorted(os.environ))\nraise SystemExit(0)\n"
    )
    server = AsgiServer("environ_app:app", env={"PYTHONPATH": str(folder)})
    with pytest.raises(ServerError) as caught, server:
        pass
    assert "ENV" in str(caught.value)
    assert "PYTEST_XDIST_WORKER" not in str(caught.value)
    assert "REVIEWPOINT_DB_URL" not in str(caught.value)


async def test_the_raw_client_reads_head_and_body(server: AsgiServer) -> None:
    async with RawRequest(server.port, "POST", "/", body=b"{}") as request:
        status, headers = await request.head()
        assert (status, headers["content-length"]) == (200, "5")
        assert await request.body() == b"hello"


async def test_the_raw_client_sees_a_body_that_was_cut_short(server: AsgiServer) -> None:
    async with RawRequest(server.port, "GET", "/cut") as request:
        await request.head()
        assert await request.piece() == b"first"
        with pytest.raises(h11.RemoteProtocolError):
            await request.piece()


@pytest.mark.parametrize("abruptly", [False, True])
async def test_the_server_notices_a_client_that_leaves(server: AsgiServer, abruptly: bool) -> None:
    async def departures() -> int:
        async with RawRequest(server.port, "GET", "/gone") as request:
            await request.head()
            return int(await request.body())

    before = await departures()
    async with RawRequest(server.port, "GET", "/wait") as request:
        await request.head()
        if abruptly:
            await request.abort()
    deadline = time.monotonic() + 10
    while await departures() == before:
        assert time.monotonic() < deadline, server.log


def test_kill_reaches_the_workers(folder: Path) -> None:
    env = {"PYTHONPATH": str(folder)}
    with AsgiServer("served_app:app", env=env, options=("--workers", "2")) as server:
        assert httpx.get(server.url).text == "hello"
        server.kill()
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url)
