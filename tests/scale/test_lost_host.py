"""A host whose packets vanish: the server ends its transactions by the keepalive that we ask for.

It needs root on Linux, and Debian's iproute2: see tests/support/network.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.network import FarHost
from tests.support.postgres import HOST, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.run import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def far() -> Iterator[FarHost]:
    with FarHost() as far:
        yield far


@pytest.fixture(scope="module")
def server(run: Run, far: FarHost) -> Iterator[PostgresServer]:
    """A server that the other host reaches too."""
    server = PostgresServer(
        run.folder / f"lost-host-{run.worker}",
        settings={"listen_addresses": f"{HOST},{far.address}"},
    )
    server.start()
    try:
        with (server.folder / "pg_hba.conf").open("a") as access:
            access.write(f"host all all {far.address}/30 scram-sha-256\n")
        server.reload()
        server.create_database("papers")
        server.psql("CREATE TABLE notes (id int PRIMARY KEY)", "papers")
        yield server
    finally:
        server.remove()


class Client:
    """A program on the other host: it does as it is told, and tells what came of it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, work: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(work + "\n")
        self._process.stdin.flush()

    def told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        assert line, self._process.stderr.read()
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def client(far: FarHost, server: PostgresServer, **server_settings: str) -> Iterator[Client]:
    url = server.url("papers", host=far.address)
    words = [sys.executable, "-m", "tests.scale.lost_host_app", url, json.dumps(server_settings)]
    with subprocess.Popen(
        far.command(words),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        far.plug_in()
        try:
            yield Client(process)
        finally:
            process.kill()
            far.plug_in()


def within(seconds: float, holds: Callable[[], object], what: str) -> float:
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - started


def test_the_server_ends_the_transaction_of_a_host_that_vanished(
    far: FarHost, server: PostgresServer
) -> None:
    """Here 1 + 2 x 1 s; what is asked for by default is 30 + 3 x 10 s. Its locks are free then."""
    keepalive = {
        "tcp_keepalives_idle": "1",
        "tcp_keepalives_interval": "1",
        "tcp_keepalives_count": "2",
        "tcp_user_timeout": "2500",
    }
    with client(far, server, **keepalive) as away:
        away.do("hold")
        pid = away.told()["pid"]
        far.unplug()
        blocked = "SET lock_timeout = '1s'; INSERT INTO notes VALUES (1)"
        with pytest.raises(subprocess.CalledProcessError) as caught:
            server.psql(blocked, "papers")
        assert "lock timeout" in caught.value.stderr

        def gone() -> bool:
            return pid not in {session.pid for session in server.sessions("papers")}

        within(8, gone, "the server has ended the transaction")
        server.psql("INSERT INTO notes VALUES (1); TRUNCATE notes", "papers")


def test_the_server_gives_up_what_nobody_acknowledges(far: FarHost, server: PostgresServer) -> None:
    """A host that vanishes while the server computes for it, and sends."""
    with client(far, server, tcp_user_timeout="1500") as away:
        away.do("compute")
        pid = away.told()["pid"]

        def sessions() -> dict[int, str]:
            return {session.pid: session.query for session in server.sessions("papers")}

        within(5, lambda: "pg_sleep" in sessions().get(pid, ""), "the server computes")
        far.unplug()
        within(10, lambda: pid not in sessions(), "the server has given up")


def test_the_host_itself_notices_within_its_own_bounds(
    far: FarHost, server: PostgresServer
) -> None:
    """A statement by query_timeout, a new request by pool.timeout; it goes on by itself afterwards."""
    with client(far, server) as away:
        away.do("ask")
        assert away.told()["error"] is None
        far.unplug()
        for error, least, most in (
            # The connection's last use was a moment ago, so that nobody looks whether it is there.
            ("QueryTimeoutError", 1.0, 2.5),
            ("DatabaseUnavailableError", 0.5, 3.5),
        ):
            away.do("ask")
            found = away.told()
            assert found["error"] == error, found
            assert least <= found["seconds"] <= most, found
        far.plug_in()
        deadline = time.monotonic() + 10
        while True:
            away.do("ask")
            if away.told()["error"] is None:
                break
            assert time.monotonic() < deadline
