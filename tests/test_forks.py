"""A forked child begins anew, whatever threads of its parent were doing at that moment."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from reviewpoint_db import forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# Each lock that a thread of the parent may have is had by one, for ever, when the child is made.
LOCKS = """
    import asyncio, os, signal, sys, threading
    from reviewpoint_db import lateness
    from reviewpoint_db.config import DatabaseConfig
    from reviewpoint_db.database import Database
    from reviewpoint_db.replica_watch import Seen

    url = "postgresql://ann:secret@127.0.0.1:1/papers"
    database = Database(DatabaseConfig(url=url, read_url=url, environment="dev"))
    replicas = database.replicas
    started = asyncio.run(database.start())
    replicas.tell(0, Seen(lag=0.1))
    had, never = threading.Event(), threading.Event()

    def hold():
        locks = (
            database.activity._lock,
            database._engines._lock,
            database._started_loops._lock,
            database._watch._lock,
            replicas._lock,
            replicas.hosts[0].engines._lock,
            lateness._lock,
        )
        for lock in locks:
            lock.acquire()
        had.set()
        never.wait()

    threading.Thread(target=hold, daemon=True).start()
    assert had.wait(10)

    async def child():
        assert not database.started and not replicas._watch.running
        assert replicas.states()[0].state == "unknown", "what the parent knew"
        await database.start()
        assert database.started and replicas._watch.running and database._watch._thread.is_alive()
        replicas.tell(0, Seen(lag=0.1))
        assert replicas.choose() is replicas.hosts[0]
        replicas.hosts[0].engine()
        database.activity.warn("leak", "said by the child")
        await database.stop()
        assert not database.started and not replicas._watch.running

    process = os.fork()
    if not process:
        signal.alarm(10)  # a lock that is never released would keep it for ever
        code = 1
        try:
            asyncio.run(child())
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print(code)
    sys.stdout.flush()
    os._exit(0)
"""


def test_no_lock_that_a_thread_of_the_parent_has_holds_the_child_up() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(LOCKS)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout == "0\n", result.stderr


def test_what_is_gone_is_not_told_of_a_fork() -> None:
    told = []

    class Heir:
        def forget_parent(self) -> None:
            told.append(self)

    heir, gone = Heir(), Heir()
    forks.on_fork(heir)
    forks.on_fork(gone)
    del gone
    forks._forget_parent()
    assert told == [heir]
