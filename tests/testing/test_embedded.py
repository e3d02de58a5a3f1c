"""The embedded server: it starts where it can, says why where it cannot, and ends with its run."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import asyncpg
import pytest

from reviewpoint_db.testing import TestingConfigurationError, embedded
from reviewpoint_db.testing.embedded import start_server
from reviewpoint_db.testing.reaper import reap
from reviewpoint_db.testing.run import Run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def run() -> Iterator[Run]:
    run = Run.create()
    yield run
    if run.folder.exists():
        assert run._owned is not None
        run._owned.close()
        reap(run.folder)


def test_it_takes_another_port_than_a_taken_one_and_ends_with_its_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], embedded._free_port()])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
        url = start_server(run.folder)

    async def ask() -> int:
        connection = await asyncpg.connect(url)
        try:
            answer: int = await connection.fetchval("SELECT 42")
            return answer
        finally:
            await connection.close()

    assert asyncio.run(ask()) == 42
    assert run._owned is not None
    run._owned.close()
    reap(run.folder)
    assert not run.folder.exists()
    with pytest.raises(OSError, match=r"."):
        asyncio.run(ask())


def test_a_server_that_does_not_start_shows_its_log(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_SETTINGS", {"nonsense": "1"})
    with pytest.raises(TestingConfigurationError, match="nonsense"):
        start_server(run.folder)


def test_where_the_package_is_missing_the_error_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(TestingConfigurationError, match=r"reviewpoint-db\[testing\]"):
        start_server(run.folder)
