"""Throughput and latency over HTTP: contenders interleaved, each under its own uvicorn process."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from benchmarks.contenders import SCHEMA
from tests.support.postgres import RemoteServer
from tests.support.relay import Relay
from tests.support.server import AsgiServer

#: Concurrent clients, one more than the pool's 5 + 10.
CLIENTS: Final = 16


Runs = list[dict[str, Any]]


class Throughput:
    """One kind of request against all contenders, in interleaved rounds.

    Args:
        server: The PostgreSQL server.
        url: Its database.
        seconds: Length of one measurement.
    """

    def __init__(self, server: RemoteServer, url: str, seconds: float) -> None:
        self._server = server
        self._url = url
        self._seconds = seconds

    def measure(self, method: str, path: str, names: list[str], rounds: int) -> dict[str, Runs]:
        """Return per contender what each round gave.

        Args:
            method: "GET" or "POST".
            path: The route, without its parameter.
            names: The contenders.
            rounds: How often each is measured, in turn.
        """
        runs: dict[str, Runs] = {name: [] for name in names}
        self._server.psql(SCHEMA, self._url.rsplit("/", 1)[1])
        with _Servers(names, self._url) as ports:
            for name in names:  # the connections are open, the statements prepared
                load(ports[name], method, path, CLIENTS, min(self._seconds, 0.5))
            for _ in range(rounds):
                for name in random.sample(names, len(names)):
                    runs[name].append(load(ports[name], method, path, CLIENTS, self._seconds))
        return runs

    def opened_connections(self, name: str, seconds: float = 4.0) -> int:
        """Count on the wire the connections that 16 clients make a contender open."""
        with Relay.to(self._url) as relay, _Servers([name], relay.url(self._url)) as ports:
            relay.reset()
            load(ports[name], "GET", "/read", CLIENTS, seconds)
            return relay.counters.opened


def load(port: int, method: str, path: str, clients: int, seconds: float) -> dict[str, Any]:
    """Run the load generator in a process of its own; wrong answers are errors."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.load",
            str(port),
            method,
            path,
            str(clients),
            str(seconds),
        ],
        capture_output=True,
        text=True,
        timeout=seconds * 3 + 60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    if result["errors"]:
        raise RuntimeError(f"{result['errors']} wrong answers, the first: {result['first_error']}")
    return result


class _Servers:
    """A uvicorn process for each contender, all up during the rounds so that they can take turns."""

    def __init__(self, names: list[str], url: str) -> None:
        self._servers = {
            name: AsgiServer(
                "benchmarks.serve:app",
                env={"BENCH_CONTENDER": name, "BENCH_URL": url, "REVIEWPOINT_ENVIRONMENT": "dev"},
                options=("--log-level", "warning", "--no-access-log"),
            )
            for name in names
        }

    def __enter__(self) -> dict[str, int]:
        with ThreadPoolExecutor() as threads:
            starting = [threads.submit(server.__enter__) for server in self._servers.values()]
        try:
            for one in starting:
                one.result()
        except BaseException:
            self.__exit__()
            raise
        return {name: server.port for name, server in self._servers.items()}

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.__exit__()
