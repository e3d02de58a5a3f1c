"""The database's hosts, as the live page shows them; tests/test_hosts.py has real ones."""

from __future__ import annotations

import time
from typing import Any

import pytest

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.endpoints.hosts import host_reports
from reviewpoint_db.endpoints.merge import all_hosts
from reviewpoint_db.endpoints.report import HostReport, WorkerReport
from reviewpoint_db.engine import host_notes
from reviewpoint_db.history import Gauges
from reviewpoint_db.hosts import HEAD_START, HostNotes, Met
from reviewpoint_db.replica_watch import Seen

ONE = "postgresql://ann:secret@db/papers"
TWO = "postgresql://ann:secret@one,two:5433/papers"


def reports(url: str = ONE, **settings: Any) -> tuple[HostReport, ...]:
    return host_reports(Database(DatabaseConfig(url=url, environment="test", **settings)))


def test_a_single_server_is_not_worth_a_table(sqlite_url: str) -> None:
    assert reports(ONE) == reports(sqlite_url) == reports("postgresql:///papers") == ()


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (None, ("replica", None, False, "not asked yet: the primary reads until it has answered")),
        (Seen(lag=0.2), ("replica", True, True, "read sessions go there")),
        (
            Seen(lag=12.0),
            ("replica", True, False, "gets no reads: it is behind (12 s; max_replica_lag is 10 s)"),
        ),
        (
            Seen(),
            (
                "replica", True, False,
                "gets no reads: it is behind (nobody knows how far; max_replica_lag is 10 s)",
            ),
        ),
        (Seen(error="refused"), ("replica", False, False, "gets no reads: refused")),
        (
            Seen(in_recovery=False),
            ("primary", True, True, "is no replica any more, and read all the same: take it out of read_url"),
        ),
    ],
)  # fmt: skip
async def test_a_replica_says_why_it_is_left_out(
    seen: Seen | None, expected: tuple[Any, ...]
) -> None:
    config = DatabaseConfig(
        url="postgresql:///papers", read_url=TWO, environment="test", max_replica_lag=10.0
    )
    database = Database(config)
    assert database.replicas is not None
    if seen is not None:
        database.replicas.tell(0, seen)
    primary, first, second = host_reports(database)
    assert (primary.host, primary.role, primary.alive) == ("default:5432", "primary", None)
    assert (first.host, second.host) == ("one:5432", "two:5433")
    assert (first.role, first.alive, first.used, first.note) == expected
    assert first.lag == (seen.lag if seen else None)
    assert (first.watched, first.out, first.open) == (True, 0, 0)


async def test_a_primary_that_accepts_nothing_is_down() -> None:
    database = Database(DatabaseConfig(url=ONE, read_url=TWO, environment="test"))
    pool: Any = database.engine.pool
    pool.outage = lambda: "Connection refused"
    primary = host_reports(database)[0]
    assert (primary.alive, primary.used) == (False, False)
    assert primary.note == "accepts no connection: Connection refused"


class _Connection:
    """What is asked of a driver's connection here."""

    closed = False

    def is_closed(self) -> bool:
        return self.closed


async def test_of_several_hosts_the_last_attempt_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(DatabaseConfig(url=TWO, environment="test"))
    notes = host_notes(database.engine)
    assert notes is not None
    assert [(one.alive, one.role, one.note) for one in host_reports(database)] == [
        (None, None, "not asked of late: no new connection was needed")
    ] * 2
    notes.failed("one:5432", ConnectionRefusedError("refused"))
    connection = _Connection()
    notes.connected("two:5433", connection)
    one, two = host_reports(database)
    assert (one.alive, one.role, one.used, one.out) == (False, None, False, 0)
    assert one.note.startswith("at the last attempt, 0.0 s ago: ConnectionRefusedError")
    assert (two.alive, two.role, two.used, two.open) == (True, "primary", True, 1)
    assert two.note == "takes the connections"
    # During a failover both may have some: whose are in use, the pool does not tell.
    other = _Connection()
    notes.connected("one:5432", other)
    assert [(each.out, each.open) for each in host_reports(database)] == [(None, 1)] * 2
    connection.closed = True
    assert host_reports(database)[1].note == "took a connection 0.0 s ago"
    later = time.monotonic() + 601
    monkeypatch.setattr("reviewpoint_db.endpoints.hosts.time.monotonic", lambda: later)
    assert host_reports(database)[1].alive is None


def test_only_who_had_the_time_to_answer_is_silent() -> None:
    notes = HostNotes()
    notes.silent("one:5432", time.monotonic())
    assert notes.met == {}
    notes.silent("one:5432", time.monotonic() - HEAD_START)
    assert notes.met["one:5432"].error == "no answer within 0.5 s"
    assert not Met(0.0).unfit


def worker(*hosts: HostReport) -> WorkerReport:
    return WorkerReport(pid=1, gauges=Gauges(), hosts=hosts)


def test_workers_add_up_and_the_gravest_word_on_a_replica_counts() -> None:
    def replica(**more: Any) -> WorkerReport:
        return worker(HostReport(host="r1", watched=True, open=1, **more))

    good, bad = replica(alive=True, used=True, lag=1.0, out=1), replica(alive=False, note="down")
    late = replica(alive=True, lag=5.0)
    (told,) = all_hosts([good, bad, late])
    assert (told.alive, told.note, told.open, told.out, told.lag) == (False, "down", 3, 1, 5.0)
    (told,) = all_hosts([good, replica()])
    assert (told.alive, told.used) == (True, True)


def test_who_has_connections_to_a_host_knows_best_whether_it_lives() -> None:
    refused = worker(HostReport(host="db1", alive=False))
    connected = worker(HostReport(host="db1", alive=True, used=True, out=None))
    unasked = worker(HostReport(host="db1"))
    assert [one.alive for one in all_hosts([unasked, refused])] == [False]
    (told,) = all_hosts([unasked, refused, connected])
    assert (told.alive, told.out) == (True, None)
