"""Several worker processes under real servers: what they share, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.postgres import HOST, RemoteServer, free_port

ROOT = Path(__file__).parents[2]
APP = "tests.scale.processes_app:app"

SERVERS = {
    "uvicorn": ["-m", "uvicorn", APP, "--host", HOST, "--port", "{port}", "--workers", "2"],
    "gunicorn": ["-m", "gunicorn", APP, "--bind", HOST + ":{port}", "--workers", "2",
                 "--worker-class", "uvicorn.workers.UvicornWorker"],
    "gunicorn --preload": ["-m", "gunicorn", APP, "--bind", HOST + ":{port}", "--workers", "2",
                           "--preload", "--worker-class", "uvicorn.workers.UvicornWorker"],
    "granian": ["-m", "granian", "--interface", "asgi", "--host", HOST, "--port", "{port}",
                "--workers", "2", APP],
}  # fmt: skip


def until(holds: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return found


class Serving:
    """A server with its workers."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://{HOST}:{port}"
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return httpx.get(f"{self.url}/db/health/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def who(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/who", timeout=10)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextmanager
def serving(server: str, url: str, folder: Path, **more: str) -> Iterator[Serving]:
    port = free_port()
    log = folder / "log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REVIEWPOINT_")}
    environment |= {"REVIEWPOINT_DB_URL": url, "PYTHONPATH": str(ROOT), **more}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *(word.replace("{port}", str(port)) for word in SERVERS[server])],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    found = Serving(process, port, log)
    try:
        until(found.ready, f"{server} answers", 30)
        yield found
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait(10)


def both(found: Serving) -> dict[int, list[dict[str, Any]]]:
    """Answers of both workers, by process."""
    answers: dict[int, list[dict[str, Any]]] = {}

    def asked() -> bool:
        with ThreadPoolExecutor(8) as threads:
            for answer in threads.map(lambda _: found.who(), range(16)):
                answers.setdefault(answer["process"], []).append(answer)
        return len(answers) == 2

    until(asked, "both workers have answered")
    return answers


@pytest.mark.parametrize("server", SERVERS)
def test_no_two_processes_share_a_connection_and_each_is_known_by_its_pid(
    server: str, postgres_url: str, tmp_path: Path
) -> None:
    # Preloaded, it is connected before the fork; elsewhere a loop may run while it is imported.
    more = {"CONNECT_AT_IMPORT": "1"} if "preload" in server else {}
    with serving(server, postgres_url, tmp_path, **more) as found:
        answers = both(found)
        backends = [{one["backend"] for one in of} for of in answers.values()]
        assert not backends[0] & backends[1]
        for process, of in answers.items():
            assert all(one["name"].endswith(f":{process}") for one in of)
            # What the kernel has for the connection, not only what was asked for.
            assert {one["idle"] for one in of} == {30}


@pytest.mark.parametrize("server", SERVERS)
def test_sigterm_lets_requests_in_flight_finish(
    server: str, postgres_url: str, postgres: RemoteServer, tmp_path: Path
) -> None:
    with (
        serving(server, postgres_url, tmp_path) as found,
        ThreadPoolExecutor(4) as threads,
    ):
        both(found)
        asked = [threads.submit(httpx.get, f"{found.url}/slow", timeout=15) for _ in range(4)]
        running = "select count(*) from pg_stat_activity where query like 'select ''held''%'"
        until(lambda: int(postgres.psql(running).strip()) == 4, "all four run")
        found.process.terminate()
        assert [one.result().status_code for one in asked] == [200] * 4, found.log
        found.process.wait(20)


@pytest.mark.parametrize("server", SERVERS)
def test_a_worker_that_is_killed_leaves_no_transaction_open(
    server: str, postgres_url: str, postgres: RemoteServer, tmp_path: Path
) -> None:
    """Its kernel closes its sockets at once; for a host that vanishes there is the keepalive."""
    with (
        serving(server, postgres_url, tmp_path) as found,
        ThreadPoolExecutor(1) as threads,
    ):
        stuck = threads.submit(httpx.get, f"{found.url}/stuck", timeout=15)
        query = (
            "select application_name from pg_stat_activity"
            " where state = 'idle in transaction' and query = 'select ''stuck'''"
        )
        name = until(lambda: postgres.psql(query).strip(), "the transaction is open")
        worker = int(name.splitlines()[-1].rpartition(":")[2])
        assert worker in {child.pid for child in psutil.Process(found.process.pid).children(True)}
        os.kill(worker, signal.SIGKILL)
        until(lambda: not postgres.psql(query).strip(), "the server has ended it", 5)
        assert isinstance(stuck.exception(10), httpx.TransportError)
