"""The thread that watches replicas: whom it finds, and when it ends."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import ExitStack

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.lsn import parse_lsn
from reviewpoint_db.replica_watch import _PRIMARY, Seen, _Host
from reviewpoint_db.replicas import Replicas

NAME = "reviewpoint_db replicas"


def of(url: str, read_url: str) -> Replicas:
    """The replicas of a database that is not started."""
    replicas = Database(DatabaseConfig(url=url, read_url=read_url, environment="test")).replicas
    assert replicas is not None
    return replicas


async def test_the_primary_is_found_behind_silent_hosts(postgres_url: str) -> None:
    """Else nobody would know how far the replicas are behind, once the first host is frozen."""
    with ExitStack() as stack:
        before, _, after = postgres_url.partition("@")
        silent = []
        for _ in range(2):
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            silent.append(f"127.0.0.1:{listening.getsockname()[1]}")
        replicas = of(f"{before}@{','.join(silent)},{after}", postgres_url)
        host = _Host(replicas._watch._addresses[0])
        try:
            assert parse_lsn((await host.ask(_PRIMARY))[0]) > 0
        finally:
            await host.close()


async def test_it_ends_with_its_loop_and_begins_anew_in_another() -> None:
    nobody = "postgresql://ann:secret@127.0.0.1:1/papers"
    replicas = of(nobody, nobody)

    async def read() -> None:
        replicas.choose()
        assert replicas._watch.running
        replicas.tell(0, Seen(lag=0.0))
        assert replicas.choose() is replicas.hosts[0]

    for _ in range(2):
        # What was seen in the first loop counts for nothing in the second.
        await asyncio.to_thread(lambda: asyncio.run(read()))
        deadline = time.monotonic() + 10
        while any(thread.name == NAME for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert replicas.choose() is None
        replicas.stop()


def test_without_a_loop_it_measures_until_its_stop() -> None:
    nobody = "postgresql://ann:secret@127.0.0.1:1/papers"
    replicas = of(nobody, nobody)
    replicas.start()
    assert replicas._watch.running
    replicas.stop()
    assert not replicas._watch.running
