"""What is observed takes bounded memory, however long a process runs.

`python -m tests.test_activity_memory` prints how much.
"""

from __future__ import annotations

import subprocess
import sys

CODE = """
import time, tracemalloc
from reviewpoint_db.activity import Activity, Holder, Work
from reviewpoint_db.context import Origin
from reviewpoint_db.errors import DatabaseUnavailableError

activity = Activity("papers")
holder = Holder(time.monotonic())
begin = time.monotonic()

def statement(number):
    # One in ten is what programs make of names and of lists.
    if number % 20 == 0:
        return f"select * from papers_{number} where title = 'a' " + "and true " * 20
    if number % 20 == 10:
        many = ", ".join(f"${one}" for one in range(1, number // 20 % 500 + 2))
        return f"select * from papers where id in ({many})"
    return f"select {number % 10_000} from papers " + "where id = 1 and " * 20

def session(number):
    work = Work()
    work.opened = begin
    work.holder = holder
    holder._origin = f"GET /papers/{number} papers"  # as many handlers as sessions
    activity.acquired(holder, 0.001, queued=True)
    activity.statement_done(holder, statement(number), 0.001, begin + number / 100)
    activity.released(holder, begin)
    activity.session_ended(work)
    if number % 10 == 0:
        activity.statement_failed(f"P{number}", 0.001, statement(number), holder.handler)
    if number % 1000 == 0:
        activity.warn("leak", f"GET /papers/x{number}y holds a connection")
        activity.answers.note(DatabaseUnavailableError("down"), 503, Origin(f"GET /papers/{number}"))

tracemalloc.start()
for number in range(20_000):  # what stays is reached long before
    session(number)
early = tracemalloc.get_traced_memory()[0]
tracemalloc.stop()

import resource
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number in range(20_000, 1_000_000):
    session(number)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
snapshot = activity.snapshot()
assert snapshot.acquired == 1_000_000
assert len(snapshot.sessions) == 201
assert len(snapshot.statement_errors) == 101
assert sum(snapshot.statement_errors.values()) == 100_000
assert len(snapshot.recent_warnings) == 50
print(early, grown * 1024)
"""


def taken() -> tuple[int, int]:
    """Bytes after 20,000 sessions, and by which the process grew after that.

    Measured in a process of its own, whose memory is only this.
    """
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=300
    )
    early, grown = map(int, done.stdout.split())
    return early, grown


def test_a_million_sessions_and_ten_thousand_statements_stay_below_20_mb() -> None:
    early, grown = taken()
    assert early < 10_000_000
    assert early + grown < 20_000_000


if __name__ == "__main__":
    _early, _grown = taken()
    sys.stdout.write(
        f"{_early / 1e6:.1f} MB after 20,000 sessions, {_grown / 1e6:.1f} MB more after a million\n"
    )
