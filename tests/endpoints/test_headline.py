"""The sentence at the top of the page: it names who is to blame, in these words."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from reviewpoint_db.endpoints.headline import headline
from reviewpoint_db.endpoints.report import (
    Blocking,
    HolderReport,
    HostReport,
    WorkerReport,
    duration,
    route_of,
)
from reviewpoint_db.failures import Failing
from reviewpoint_db.health_report import CheckResult, HealthReport, report_of
from reviewpoint_db.history import Gauges

_numbers = count()
CREATED = "has the schema been created? Run `litestar database upgrade` or `reviewpoint-db upgrade`"
IDLE: dict[str, Any] = {"state": "idle in transaction", "state_for": 8.0}


def holder(route: str, held: float = 1.0, **fields: Any) -> HolderReport:
    return HolderReport(id=str(next(_numbers)), route=route, held=held, **fields)


def worker(
    *holders: HolderReport, limit: int | None = 5, waiting: int = 0, pid: int = 1, **fields: Any
) -> WorkerReport:
    gauges = Gauges(out=len(holders), waiting=waiting, limit=limit)
    return WorkerReport(pid=pid, gauges=gauges, holders=holders, **fields)


def blocking(waiting_pid: int, blocking_pid: int, **fields: Any) -> Blocking:
    names = {"waiting": f"W{waiting_pid}", "blocking": f"B{blocking_pid}", **fields}
    return Blocking(waiting_pid=waiting_pid, blocking_pid=blocking_pid, **names)


def slow(number: int, held: float = 42.0) -> list[HolderReport]:
    return [holder("GET /slow", held - n, place="render") for n in range(number)]


@pytest.mark.parametrize(
    ("workers", "state", "text"),
    [
        ([worker()], "calm", "All calm: 0 of 5 connections in use, nobody waits."),
        (
            [worker(holder("GET /a"), limit=None)],
            "calm",
            "All calm: 1 connections in use, nobody waits.",
        ),
        (
            [worker(*slow(4))],
            "busy",
            "GET /slow has held a connection for 42 s, in render.",
        ),
        (
            [worker(*slow(3, 5.0), holder("GET /a"))],
            "busy",
            "Busy: 4 of 5 connections in use, 3 of them by GET /slow, in render; nobody waits.",
        ),
        (
            [worker(holder("GET /a"), waiting=1)],
            "busy",
            "Busy: 1 of 5 connections in use, 1 of them by GET /a; 1 request waits.",
        ),
        # Its connection is being opened.
        ([worker(waiting=1)], "calm", "All calm: 0 of 5 connections in use, 1 request waits."),
        (
            [WorkerReport(pid=1, gauges=Gauges(out=4, limit=5))],
            "busy",
            "Busy: 4 of 5 connections in use; nobody waits.",
        ),
        (
            [worker(*slow(5), waiting=3)],
            "exhausted",
            "GET /slow holds 5 of 5 connections, the oldest for 42 s, in render; 3 requests wait.",
        ),
        (
            [worker(*slow(1), holder("GET /a"), limit=2)],
            "exhausted",
            "GET /slow holds 1 of 2 connections, for 42 s, in render; nobody waits.",
        ),
        (
            [worker(*slow(5), pid=7, waiting=1), worker(pid=8)],
            "exhausted",
            (
                "GET /slow holds 5 of 5 connections of worker 7, the oldest for 42 s, in render; "
                "1 request waits."
            ),
        ),
        (
            [worker(*slow(5)), worker(*slow(5), waiting=2)],
            "exhausted",
            (
                "GET /slow holds 10 of 10 connections, the oldest for 42 s, in render; "
                "2 requests wait."
            ),
        ),
        (
            [WorkerReport(pid=1, gauges=Gauges(out=5, waiting=1, limit=5))],
            "exhausted",
            "All 5 connections are in use; 1 request waits.",
        ),
        (
            [worker(holder("GET /leak", 125.0, abandoned=True))],
            "leaking",
            (
                "A leak: the task that took a connection for GET /leak 2 min 5 s ago has ended without "
                "returning it."
            ),
        ),
        (
            [worker(*[holder("GET /leak", 7.0, abandoned=True) for _ in range(3)])],
            "leaking",
            (
                "A leak: the tasks that took 3 connections for GET /leak have ended without returning "
                "them, the oldest 7.0 s ago."
            ),
        ),
        (
            [worker(waiting=2, outage="Connection refused")],
            "unreachable",
            "The database is unreachable: Connection refused; 2 requests wait.",
        ),
        (
            [
                worker(outage="Connection refused", outage_for=12.0),
                worker(outage="no answer", outage_for=3.0),
                worker(),
            ],
            "unreachable",
            "The database has been unreachable for 12 s: Connection refused; nobody waits.",
        ),
        (
            [worker(*[holder("GET /slow", place="send_mail", **IDLE) for _ in range(2)])],
            "busy",
            (
                "GET /slow has been idle in a transaction for 8.0 s, in send_mail: its locks and its "
                "connection are kept from others."
            ),
        ),
        (
            [worker(holder("GET /slow", 42.0, **IDLE))],
            "busy",
            "GET /slow has held a connection for 42 s.",
        ),
        (
            [worker(holder("GET /a", state="idle in transaction", state_for=4.0))],
            "calm",
            "All calm: 1 of 5 connections in use, nobody waits.",
        ),
    ],
)
def test_the_words(workers: list[WorkerReport], state: str, text: str) -> None:
    said = headline(workers)
    assert (said.state, said.text, said.also) == (state, text, ())


def test_whoever_explains_most_connections_comes_first() -> None:
    leaked = [holder("GET /leak", 60.0, abandoned=True) for _ in range(3)]
    said = headline([worker(*leaked, *slow(2), waiting=1)])
    assert said.state == "leaking"
    assert said.also == (
        "GET /slow holds 2 of 5 connections, the oldest for 42 s, in render; 1 request waits.",
    )
    said = headline([worker(*leaked[:1], *slow(4), waiting=1)])
    assert said.state == "exhausted"
    assert said.also[0].startswith("A leak: ")
    said = headline([worker(*leaked, limit=3)])
    assert said.state == "leaking"
    assert said.also == (
        "GET /leak holds 3 of 3 connections, the oldest for 1 min 0 s; nobody waits.",
    )


def test_an_outage_comes_before_everything() -> None:
    said = headline([worker(*slow(5), outage="Connection refused")])
    assert said.state == "unreachable"
    assert len(said.also) == 1


def report(connection: str | None = None, *checks: CheckResult) -> HealthReport:
    first = CheckResult(
        name="connection", status="unhealthy" if connection else "healthy", detail=connection
    )
    pool = CheckResult(name="pool", status="healthy")
    return report_of(first, pool, [], list(checks))


def test_what_only_a_health_check_met_is_told_too() -> None:
    said = headline([worker()], health=report("no answer within 2 s"))
    assert said.state == "unreachable"
    assert said.text == "The database is unreachable: no answer within 2 s; nobody waits."
    said = headline([worker(outage="refused", outage_for=3.0)], health=report("no answer"))
    assert said.text == "The database has been unreachable for 3.0 s: refused; nobody waits."
    assert headline([worker()], health=report()).state == "calm"


def test_what_is_unreachable_has_its_address() -> None:
    said = headline([worker(outage="refused", outage_for=0.4)], address="db1:5432")
    assert said.text == "The database at db1:5432 is unreachable: refused; nobody waits."


def test_an_outage_leaves_no_word_on_where_the_reads_go() -> None:
    hosts = [replica("r1", alive=False), HostReport(host="db", alive=False)]
    said = headline([worker(outage="refused")], hosts=hosts, server_error="refused")
    assert said.state == "unreachable"
    assert said.also == ("Replica r1 is down; host db is down.",)


def test_a_failing_check_of_the_application_is_named() -> None:
    queue = CheckResult(name="queue", status="unhealthy", detail="failed")
    disk = CheckResult(name="disk", status="healthy")
    said = headline([worker()], health=report(None, queue, disk))
    assert said.state == "degraded"
    assert said.text == "The application's check 'queue' fails: failed."
    said = headline([worker(*slow(5))], health=report(None, queue))
    assert (said.state, said.also) == (
        "exhausted",
        ("The application's check 'queue' fails: failed.",),
    )


def test_a_server_that_did_not_answer_the_page_is_told_of() -> None:
    said = headline([worker()], server_error="TimeoutError: time limit exceeded")
    assert said.state == "degraded"
    assert (
        said.text == "The server did not say who waits for whom: TimeoutError: time limit exceeded."
    )


@pytest.mark.parametrize(
    ("blockings", "text"),
    [
        (
            [blocking(1, 2, seconds=12.0, place="send_mail")],
            "W1 has waited 12 s for B2, which is in send_mail.",
        ),
        (
            [blocking(1, 2, blocking_state="idle in transaction")],
            "W1 waits for B2, which is idle in transaction.",
        ),
        ([blocking(1, 2)], "W1 waits for B2, which has the lock."),
        (
            [blocking(3, 1), blocking(1, 2, place="send_mail"), blocking(3, 2)],
            "W1 and 1 more wait for B2, which is in send_mail.",
        ),
        (
            [blocking(3, 1, seconds=3.0), blocking(1, 2, seconds=7.0, place="send_mail")],
            "W1 and 1 more have waited up to 7.0 s for B2, which is in send_mail.",
        ),
        # A deadlock, until the server ends it.
        ([blocking(1, 2), blocking(2, 1)], "W1 and 1 more wait for B2, which has the lock."),
    ],
)
def test_a_chain_is_told_from_its_end(blockings: list[Blocking], text: str) -> None:
    said = headline([worker()], blockings)
    assert (said.state, said.text) == ("blocked", text)


def test_those_who_only_wait_for_a_lock_are_not_blamed_for_an_empty_pool() -> None:
    culprit = holder("PATCH /papers", backend_pid=1, place="send_mail")
    waiting = [holder("POST /reviews", backend_pid=n) for n in range(2, 6)]
    blockings = [
        blocking(n, 1, waiting="POST /reviews", blocking="PATCH /papers", place="send_mail")
        for n in range(2, 6)
    ]
    said = headline([worker(culprit, *waiting, waiting=9)], blockings)
    assert said.state == "blocked"
    assert said.text == "POST /reviews and 3 more wait for PATCH /papers, which is in send_mail."


def test_silent_workers_are_told_of() -> None:
    said = headline([worker()], silent=[7])
    assert said.state == "degraded"
    assert said.text.startswith("Worker 7 does not answer: ")
    said = headline([worker(*slow(5))], silent=[7, 8])
    assert said.state == "exhausted"
    assert said.also[0].startswith("Workers 7, 8 do not answer: ")


@pytest.mark.parametrize(
    ("failing", "succeeded", "text"),
    [
        (
            [Failing("42P01", "GET /missing", 98)],
            98,
            f"9.8 statements a second fail with 42P01, all in GET /missing: {CREATED}.",
        ),
        (
            [
                Failing("42P01", "GET /missing", 5),
                Failing("57014", "GET /slow", 6),
                Failing("42P01", "GET /a", 2),
            ],
            60,
            f"0.7 statements a second fail with 42P01, most often in GET /missing: {CREATED}.",
        ),
        (
            [Failing("25006", "POST /papers", 50)],
            0,
            (
                "5.0 statements a second fail with 25006, all in POST /papers: the server is read-only; "
                "does the URL point to a replica?"
            ),
        ),
        ([Failing("42P01", "GET /missing", 4)], 0, None),
        ([Failing("42P01", "GET /missing", 9)], 91, None),
        ([], 100, None),
    ],
)
def test_statements_that_fail_are_told_when_they_are_a_good_share(
    failing: list[Failing], succeeded: int, text: str | None
) -> None:
    workers = [
        worker(failing=tuple(failing[:1]), succeeded=succeeded),
        worker(failing=tuple(failing[1:])),
    ]
    said = headline(workers)
    assert said.state == ("degraded" if text else "calm")
    assert text is None or said.text == text


def test_a_late_event_loop_is_told_of() -> None:
    said = headline([worker(late=0.5), worker(pid=7, late=3.0), worker()])
    assert said.state == "degraded"
    assert said.text.startswith("Something blocked the event loop of worker 7 for 3.0 s")
    said = headline([worker(late=9.0, late_place="block (app.py:7)")])
    assert said.text == (
        "block (app.py:7) blocked the event loop of worker 1 for 9.0 s, and every request of it "
        "waited."
    )
    said = headline([worker(*slow(5), late=3.0)])
    assert said.state == "exhausted"
    assert said.also[0].startswith("Something blocked the event loop of worker 1 for 3.0 s")


def replica(name: str, **fields: Any) -> HostReport:
    return HostReport(host=name, watched=True, **fields)


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        (
            [replica("r1", alive=False), replica("r2", alive=True, used=True)],
            "Replica r1 is down: reads go to r2.",
        ),
        (
            [replica("r1", alive=True, lag=12.0), replica("r2", alive=False)],
            "Replica r1 is 12 s behind and gets no reads; replica r2 is down: reads go to the primary.",
        ),
        (
            [HostReport(host="db1", alive=False), HostReport(host="db2", used=True)],
            "Host db1 is down: connections go to db2.",
        ),
        ([HostReport(host="db1", alive=False)], "Host db1 is down."),
        # What nobody has measured yet is no fault.
        ([replica("r1"), replica("r2", alive=True)], None),
        ([replica("r1", alive=True, used=True, lag=0.1)], None),
    ],
)
def test_a_replica_that_is_down_or_behind_is_named(
    hosts: list[HostReport], text: str | None
) -> None:
    said = headline([worker()], hosts=hosts)
    assert said.state == ("degraded" if text else "calm")
    assert text is None or said.text == text
    said = headline([worker(*slow(5))], hosts=hosts)
    assert (said.state, said.also) == ("exhausted", (text,) if text else ())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (7505.0, "2 h 5 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("origin", "route"),
    [
        ("PATCH /papers/{id} app.patch_paper [abc]", "PATCH /papers/{id}"),
        ("GET /papers", "GET /papers"),
        ("nightly job", "nightly job"),
        ("Nightly /papers", "Nightly /papers"),
        ("job", "job"),
    ],
)
def test_routes(origin: str, route: str) -> None:
    assert route_of(origin) == route
