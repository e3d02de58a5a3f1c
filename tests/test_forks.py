"""A forked child begins anew, whatever threads of its parent were doing at that moment."""

from __future__ import annotations

import asyncio
import os
from weakref import WeakSet

import pytest

from reviewpoint_db import forks, lateness
from reviewpoint_db.activity import Holder
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.replica_watch import Seen
from tests.support.commands import printed_by

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# Each lock that a thread of the parent may have is had by one, for ever, when the child is made.
LOCKS = """
    import asyncio, os, signal, sys, threading
    from reviewpoint_db import default, freezing, lateness
    from reviewpoint_db.config import DatabaseConfig
    from reviewpoint_db.database import Database
    from reviewpoint_db.replica_watch import Seen

    url = "postgresql://ann:secret@127.0.0.1:1/papers"
    database = Database(DatabaseConfig(url=url, read_url=url, environment="dev"))
    default.configure(DatabaseConfig(url=url, environment="dev"))
    replicas = database.replicas
    started = asyncio.run(database.start())
    replicas.tell(0, Seen(lag=0.1))
    had, never = threading.Event(), threading.Event()

    def hold():
        locks = (
            database.activity._lock,
            database.activity.answers._lock,
            database._engines._lock,
            database._started_loops._lock,
            database._watch._lock,
            replicas._lock,
            replicas.hosts[0].engines._lock,
            lateness._lock,
            default._state._creation_lock,
            freezing._count.lock,
        )
        for lock in locks:
            lock.acquire()
        had.set()
        never.wait()

    threading.Thread(target=hold, daemon=True).start()
    assert had.wait(10)

    async def child():
        default.ensure_engine_initialized()
        with freezing.frozen():
            pass
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
    assert printed_by(LOCKS) == "0\n"


#: A child ends in one of the ways that have it clean up, and its parent reads on.
MEMORY = """
    import asyncio, os, sys
    from sqlalchemy import text
    from reviewpoint_db.config import DatabaseConfig
    from reviewpoint_db.database import Database

    database = Database(DatabaseConfig(url="sqlite:///:memory:", environment="test"))

    async def write():
        async with database.session() as session:
            await session.execute(text("CREATE TABLE papers (id int)"))
            await session.commit()

    async def count():
        async with database.session() as session:
            return await session.scalar(text("SELECT count(*) FROM sqlite_master"))

    async def child():
        async with database:
            assert await count() == 0, "what the parent stored"

    loop = asyncio.new_event_loop()
    loop.run_until_complete(write())
    process = os.fork()
    if not process:
        if sys.argv[1] == "stop":
            asyncio.run(child())
        sys.exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print(code, os.path.exists(database.engine.url.database), loop.run_until_complete(count()))
    loop.run_until_complete(database.stop())
"""


@pytest.mark.parametrize("way", ["stop", "exit"])
def test_a_child_leaves_its_parents_memory_alone(way: str) -> None:
    assert printed_by(MEMORY, way) == "0 True 1\n"


def test_a_child_knows_of_no_holder_no_loop_and_no_host() -> None:
    """Here in one process, where what it begins with can be looked at."""
    url = "postgresql://ann:secret@127.0.0.1:1/papers"
    database = Database(DatabaseConfig(url=url, read_url=url, environment="dev"))
    replicas = database.replicas
    assert replicas is not None
    loop = asyncio.new_event_loop()
    before = database._started_loops, database._watch
    loop.run_until_complete(_entered(database))
    holder = Holder(0.0)
    database.activity.acquired(holder, 0.0, queued=False)
    begun = database.started
    assert database.activity.held() == [holder]
    replicas.tell(0, Seen(lag=0.1))
    watch, beats = replicas._watch, dict(lateness._beats)
    assert loop in beats
    for heir in (database, database.activity, *before, replicas):
        heir.forget_parent()
    assert (begun, database.started) == (True, False)
    assert database.activity.held() == []
    assert before[0].enter(loop), "the parent's loop counts as started"
    assert loop not in lateness._beats
    assert replicas._watch is not watch
    assert [one.state for one in replicas.states()] == ["unknown"]
    watch.stop()
    for beat in beats.values():
        beat.leave(database.activity)
    loop.close()


async def _entered(database: Database) -> None:
    await database.start()


def test_what_is_gone_is_not_told_of_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class Heir:
        def forget_parent(self) -> None:
            told.append(self)

    monkeypatch.setattr(forks, "_heirs", WeakSet())
    heir, gone = Heir(), Heir()
    forks.on_fork(heir)
    forks.on_fork(gone)
    del gone
    forks._forget_parent()
    assert told == [heir]
