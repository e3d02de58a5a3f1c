"""Prometheus metrics, read by the official parser."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self, get_args

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from reviewpoint_db import metrics
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.endpoints.metrics import metrics as metrics_route
from reviewpoint_db.errors import PoolTimeoutError
from reviewpoint_db.metrics import (
    METRICS,
    collector,
    exposition,
    is_multiprocess,
    reporting,
)
from reviewpoint_db.metrics_folder import forget_the_dead
from reviewpoint_db.snapshots import CloseReason, WarningKind


@pytest.fixture(autouse=False)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Database]:
    async with Database(DatabaseConfig(url=url, environment="test", **settings)) as database:
        yield database


def parsed(body: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value_of(body: bytes, name: str, **labels: str) -> float:
    labels.setdefault("database", "default")
    return parsed(body)["reviewpoint_db_" + name, tuple(sorted(labels.items()))]


@pytest.mark.usefixtures("one_process")
async def test_all_metrics_are_exposed_and_true(database_url: str) -> None:
    async with opened(database_url, pool=PoolConfig(size=1, max_overflow=0)) as database:
        async with database.session(origin="GET /papers") as session:
            await session.execute(text("select 1"))
            pool: Any = database.engine.pool
            pool._timeout = 0.05  # only now, since connecting may take longer
            with pytest.raises(PoolTimeoutError):
                async with database.engine.connect():
                    pass
            with pytest.raises(DBAPIError):
                await session.execute(text("select * from nowhere"))
            await session.rollback()
            await session.execute(text("select 1"))
            body, media_type = exposition(database)
            assert media_type.startswith("text/plain")
            assert value_of(body, "connections", state="used") == 1
            assert value_of(body, "connections", state="idle") == 0
            assert value_of(body, "connections_max") == 1
            assert value_of(body, "pending_requests") == 0
        body, _ = exposition(database)
        assert value_of(body, "connections", state="idle") == 1
        assert value_of(body, "timeouts_total") == 1
        assert value_of(body, "waits_total") == 1
        assert value_of(body, "connect_failures_total") == 0
        assert value_of(body, "create_seconds_count") == 1
        assert value_of(body, "use_seconds_count") == 2
        assert value_of(body, "wait_seconds_bucket", le="+Inf") == 2
        assert value_of(body, "session_seconds_count", handler="GET /papers") == 1
        assert value_of(body, "statement_seconds_sum") > 0
        (error,) = database.activity.snapshot().statement_errors
        assert value_of(body, "statement_errors_total", code=error) == 1
        families = {family.name for family in text_string_to_metric_families(body.decode())}
        assert families == {metric.full_name for metric in METRICS}


@pytest.mark.usefixtures("one_process")
async def test_an_outage_is_a_gauge_until_it_ends(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database:
        assert value_of(exposition(database)[0], "up") == 1
        database.activity.connection_failed("refused")
        assert value_of(exposition(database)[0], "up") == 0
        await database.health()
        assert value_of(exposition(database)[0], "up") == 1


@pytest.mark.usefixtures("one_process")
async def test_buckets_are_cumulative_and_end_at_infinity(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database:
        for seconds in (0.00001, 0.01, 0.02, 500.0):
            database.activity.connection_opened(seconds)
        body, _ = exposition(database)
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in parsed(body).items()
        if name == "reviewpoint_db_create_seconds_bucket"
    }
    assert list(buckets.values()) == sorted(buckets.values())
    assert buckets["+Inf"] == 4
    assert buckets["0.0001"] == 1


@pytest.mark.usefixtures("one_process")
async def test_a_pool_without_a_limit_is_infinite(sqlite_url: str) -> None:
    async with opened(sqlite_url) as database, database.engine.connect():
        pool: Any = database.engine.pool
        pool._slots.limit = float("inf")
        assert value_of(exposition(database)[0], "connections_max") == float("inf")


@pytest.mark.usefixtures("one_process")
async def test_several_databases_share_the_registry_of_an_application(sqlite_url: str) -> None:
    registry = CollectorRegistry()
    async with opened(sqlite_url) as first, opened(sqlite_url, name="second") as second:
        with reporting([first, second], lambda: registry):
            body = generate_latest(registry)
            assert value_of(body, "connections_max") == 15
            assert value_of(body, "connections_max", database="second") == 15
            assert body.count(b"# HELP reviewpoint_db_connections_max") == 1
        assert generate_latest(registry) == b""
        with reporting([first]):
            pass


@pytest.mark.usefixtures("one_process")
async def test_the_route_answers_text_or_says_what_to_install(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(sqlite_url) as database:
        reply = metrics_route(database)
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/plain")
        assert reply.headers["cache-control"] == "no-store"
        assert b"reviewpoint_db_connections" in reply.body
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        reply = metrics_route(database)
        assert (reply.status, reply.body) == (
            501,
            b"Install reviewpoint-db[prometheus] to have metrics here.\n",
        )


#: What is there before anything has happened: by what a counter's second label can be.
FROM_THE_START = {
    "connections_closed": get_args(CloseReason),
    "warnings": get_args(WarningKind),
    "statement_errors": (),  # whatever the database may answer
    "session_seconds": (),
}


def expect_zeros(body: bytes) -> None:
    for metric in METRICS:
        end = {"counter": "_total", "gauge": None}.get(metric.kind, "_count")
        if end is None:
            continue
        labels = FROM_THE_START[metric.name] if metric.label else ("",)
        for label in labels:
            told = {metric.label: label} if metric.label else {}
            assert value_of(body, metric.name + end, **told) == 0, (metric.name, label)


@pytest.mark.usefixtures("one_process")
def test_counters_are_there_before_their_first_event(sqlite_url: str) -> None:
    """Else its first event is no increase, and no alert sees the first leak of a process."""
    body, _ = exposition(Database(DatabaseConfig(url=sqlite_url, environment="test")))
    expect_zeros(body)


class Worker:
    """A process whose metrics are in a folder with those of others; it waits for lines on its input."""

    def __init__(self, folder: Path, code: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def until(self, line: str) -> bytes:
        """Return what it prints before this line."""
        return "".join(iter(self._output.readline, f"{line}\n")).encode()

    def go_on(self) -> None:
        """Let it do the next thing."""
        self._input.write("\n")
        self._input.flush()

    def end(self) -> bytes:
        """Let it come to its end, and return what it prints last."""
        printed, _ = self._process.communicate("\n", timeout=30)
        assert self._process.returncode == 0
        return printed.encode()


IDLE = """
import sys
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.metrics import exposition, reporting

database = Database(DatabaseConfig(url=sys.argv[1], environment="test"))
with reporting([database]):
    sys.stdout.write(exposition(database)[0].decode())
"""


def test_the_counters_of_several_processes_too(sqlite_url: str, tmp_path: Path) -> None:
    with Worker(tmp_path, IDLE, sqlite_url) as worker:
        body = worker.end()
    expect_zeros(body)
    for state in ("used", "idle"):
        assert value_of(body, "connections", state=state) == 0
    assert value_of(body, "pending_requests") == 0


def test_who_starts_takes_the_gauges_of_the_dead_out_and_those_of_nobody_else(
    sqlite_url: str, tmp_path: Path
) -> None:
    with Worker(tmp_path, WORKER, sqlite_url) as living:
        with Worker(tmp_path, WORKER, sqlite_url) as dead:
            living.until("ready")
            dead.until("ready")
        assert (tmp_path / f"gauge_livesum_{dead.pid}.db").exists()
        with Worker(tmp_path, IDLE, sqlite_url) as starting:
            body = starting.end()
        assert value_of(body, "connections", state="used") == 2
        assert value_of(body, "connections_max") == 2 + 15
        assert value_of(body, "timeouts_total") == 2  # what has happened has happened
        assert not (tmp_path / f"gauge_livesum_{dead.pid}.db").exists()
        assert (tmp_path / f"gauge_livesum_{living.pid}.db").exists()
        assert (tmp_path / f"counter_{dead.pid}.db").exists()


def test_whom_one_may_not_ask_lives_and_two_that_start_at_once_do_not_mind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_ours(_pid: int, _signal: int) -> None:
        raise PermissionError

    def nobody(_pid: int, _signal: int) -> None:
        raise ProcessLookupError

    def another_was_faster(_file: str) -> None:
        raise FileNotFoundError

    file = tmp_path / "gauge_livemax_7.db"
    file.touch()
    (tmp_path / "gauge_livesum_of_another.db").touch()
    monkeypatch.setattr(os, "kill", not_ours)
    forget_the_dead(tmp_path)
    assert file.exists()
    monkeypatch.setattr(os, "kill", nobody)
    monkeypatch.setattr(os, "remove", another_was_faster)
    forget_the_dead(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(os, "kill", nobody)
    forget_the_dead(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["gauge_livesum_of_another.db"]


WORKER = """
import asyncio, sys
from sqlalchemy import text
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import PoolTimeoutError
from reviewpoint_db.metrics import exposition, reporting

async def main():
    pool = PoolConfig(size=1, max_overflow=1)
    config = DatabaseConfig(url=sys.argv[1], environment="test", pool=pool)
    async with Database(config) as database:
        with reporting([database]):
            async with database.read_session(origin="GET /papers") as session:
                await session.execute(text("select 1"))
                async with database.engine.connect(), database.engine.connect():
                    database.engine.pool._timeout = 0.05
                    try:
                        async with database.engine.connect():
                            pass
                    except PoolTimeoutError:
                        pass
                    print("ready", flush=True)
                    sys.stdin.readline()
                    sys.stdout.write(exposition(database)[0].decode() + "# EOF\\n")
                    sys.stdout.flush()
                    sys.stdin.readline()
            database.activity.warn("leak", "for the count")
        sys.stdout.write(exposition(database)[0].decode())

asyncio.run(main())
"""


def test_two_workers_answer_with_the_sum_of_both(sqlite_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    with Worker(folder, WORKER, sqlite_url) as first, Worker(folder, WORKER, sqlite_url) as second:
        first.until("ready")
        second.until("ready")
        first.go_on()
        body = first.until("# EOF")
        assert value_of(body, "connections", state="used") == 4
        assert value_of(body, "connections", state="idle") == 0
        assert value_of(body, "connections_max") == 4
        assert value_of(body, "pending_requests") == 0
        assert value_of(body, "timeouts_total") == 2
        assert value_of(body, "create_seconds_count") == 4
        assert value_of(body, "statement_seconds_count") == 2
        families = {family.name for family in text_string_to_metric_families(body.decode())}
        assert families <= {metric.full_name for metric in METRICS}
        assert "reviewpoint_db_wait_seconds" in families
        first.end()
        second.end()


def test_of_several_processes_the_worst_word_on_a_replica_counts(tmp_path: Path) -> None:
    """One that has ended says nothing bad of it any more."""
    code = """
import sys
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.metrics import exposition, reporting
from reviewpoint_db.replica_watch import Seen

url = "postgresql://ann@{}/papers"
config = DatabaseConfig(url=url.format("db"), read_url=url.format("r1"), environment="test")
database = Database(config)
with reporting([database]):
    for word in sys.argv[1:]:
        if word == "lost":
            database.replicas.lost(database.replicas.hosts[0])
        else:
            database.replicas.tell(0, Seen(lag=float(word)))
    sys.stdout.write(exposition(database)[0].decode() + "# EOF\\n")
    sys.stdout.flush()
    sys.stdin.readline()
sys.stdout.write(exposition(database)[0].decode())
"""
    with ExitStack() as stack:
        workers, bodies = [], []
        for words in (["0.5"], ["0.25", "7", "0.25", "lost"]):
            workers.append(stack.enter_context(Worker(tmp_path, code, *words)))
            bodies.append(workers[-1].until("# EOF"))
        up = [value_of(body, "replica_up", replica="r1:5432") for body in bodies]
        lag = [value_of(body, "replica_lag_seconds", replica="r1:5432") for body in bodies]
        assert (up, lag) == ([1, 0], [0.5, 0.5])
        last = workers[1].end()
        assert value_of(last, "replica_up", replica="r1:5432") == 1
        assert value_of(last, "replica_lag_seconds", replica="r1:5432") == 0.5


def test_of_several_processes_the_worst_word_on_the_database_counts(tmp_path: Path) -> None:
    """One that has ended says nothing bad of it any more."""
    code = """
import sys
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.metrics import exposition, reporting

database = Database(DatabaseConfig(url="postgresql://ann@db/papers", environment="test"))
if sys.argv[1] == "before":
    database.activity.connection_failed("refused")
with reporting([database]):
    for word in sys.argv[2:]:
        if word == "fails":
            database.activity.connection_failed("refused")
        else:
            database.activity.connection_opened(0.1)
    sys.stdout.write(exposition(database)[0].decode() + "# EOF\\n")
    sys.stdout.flush()
    sys.stdin.readline()
sys.stdout.write(exposition(database)[0].decode())
"""
    with ExitStack() as stack:
        workers, found = [], []
        for words in (["-"], ["before"], ["-", "fails"]):
            workers.append(stack.enter_context(Worker(tmp_path, code, *words)))
            found.append(value_of(workers[-1].until("# EOF"), "up"))
        assert found == [1, 0, 0]
        for worker, left in zip(workers[1:], (0, 1), strict=True):
            assert value_of(worker.end(), "up") == left


def test_what_a_process_writes_through_ends_with_it(sqlite_url: str, tmp_path: Path) -> None:
    code = """
import asyncio, sys
from sqlalchemy import text
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.metrics import exposition, reporting

async def main():
    async with Database(DatabaseConfig(url=sys.argv[1], environment="test")) as database:
        with reporting([database]):
            async with database.session(origin="a job") as session:
                await session.execute(text("select 1"))
        database.activity.warn("leak", "is no longer written")
    sys.stdout.write(exposition(database)[0].decode())

asyncio.run(main())
"""
    with Worker(tmp_path, code, sqlite_url) as worker:
        body = worker.end()
    assert value_of(body, "session_seconds_count", handler="a job") == 1
    assert value_of(body, "connections_max") == 0
    assert value_of(body, "connections", state="idle") == 0
    assert value_of(body, "warnings_total", kind="leak") == 0


@pytest.mark.usefixtures("one_process")
def test_the_folder_decides_how_metrics_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_multiprocess()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/tmp")
    assert is_multiprocess()
    assert collector().collect() is not None
    assert metrics.METRICS is METRICS
