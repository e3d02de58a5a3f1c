"""The PgBouncer that the tests start is a real one, and ends when it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support.pgbouncer import TRACKING, PgBouncer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.run import Run


@pytest.fixture
def folder(run: Run) -> Path:
    return run.folder / f"pgbouncer-support-{run.worker}"


@pytest.mark.parametrize("tracking", [False, True])
async def test_it_serves_by_transaction_and_comes_back_on_its_port(
    folder: Path, own_url: str, tracking: bool
) -> None:
    with PgBouncer(folder, own_url, pool_size=1, tracking=tracking) as bouncer:
        assert bouncer.version >= TRACKING or not tracking
        first = await asyncpg.connect(bouncer.url, statement_cache_size=0)
        second = await asyncpg.connect(bouncer.url, statement_cache_size=0)
        asked = [await each.fetchval("SELECT pg_backend_pid()") for each in (first, second)]
        assert asked[0] == asked[1] != first.get_server_pid()
        port = bouncer.port
        bouncer.stop()
        with pytest.raises(OSError):
            await asyncpg.connect(bouncer.url)
        bouncer.restart()
        assert bouncer.port == port
        third = await asyncpg.connect(bouncer.url, statement_cache_size=0)
        for each in (first, second, third):
            each.terminate()
    assert not bouncer.running


def test_one_that_does_not_start_says_why(folder: Path, own_url: str) -> None:
    with pytest.raises(RuntimeError, match="did not start"):
        PgBouncer(folder, own_url, settings={"pool_mode": "nonsense"}).start()
