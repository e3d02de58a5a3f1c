"""`db_healthcheck()`."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from reviewpoint_db import default
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from tests.support.default import BOUND, config_of, current, shown
from tests.support.pools import until
from tests.support.postgres import PostgresServer
from tests.support.relay import Relay


async def test_a_healthy_database_is_true(on_both: Any, log: list[str]) -> None:
    assert await default.db_healthcheck() is True
    assert default.engine is not None
    assert shown(log, "INFO Starting healthcheck")
    assert shown(log, "DEBUG Connection established in 0.")
    assert shown(log, "DEBUG Query answered in 0.")
    assert shown(log, "INFO Healthcheck passed in 0.")
    assert shown(log, "INFO After healthcheck - Worker: main")


async def test_an_unreachable_database_is_false(
    fresh: Any, own_postgres: PostgresServer, own_url: str, log: list[str]
) -> None:
    default.configure(config_of(own_url))
    own_postgres.stop("immediate")
    assert await default.db_healthcheck() is False
    assert shown(log, "ERROR Healthcheck failed after 0.")


async def test_a_silent_database_is_false_in_time(fresh: Any, postgres_url: str) -> None:
    with Relay.to(postgres_url) as relay:
        default.configure(config_of(relay.url(postgres_url), health_timeout=0.3))
        relay.blackhole()
        async with asyncio.timeout(BOUND):
            assert await default.db_healthcheck() is False
        relay.restore()


async def test_a_cancelled_check_of_a_patched_engine_leaves_nothing(
    fresh: Any, postgres_url: str
) -> None:
    """The task is held until its end, and ends."""
    with Relay.to(postgres_url) as relay:
        relay.blackhole()
        url = relay.url(postgres_url).replace("postgresql:", "postgresql+asyncpg:")
        default.engine = create_async_engine(url)
        check = asyncio.create_task(default.db_healthcheck())
        await until(lambda: default._late_checks)
        check.cancel()
        with pytest.raises(asyncio.CancelledError):
            await check
        await until(lambda: not default._late_checks)
        relay.restore()
        await default.engine.dispose()


async def test_an_exhausted_pool_is_still_healthy(fresh: Any, postgres_url: str) -> None:
    pool = PoolConfig(size=1, max_overflow=0)
    default.configure(config_of(postgres_url, pool=pool))
    async with default.get_async_session() as session:
        await session.execute(text("select 1"))
        async with asyncio.timeout(BOUND):
            assert await default.db_healthcheck() is True


async def test_an_application_s_failed_check_is_not_the_databases(on_sqlite: Any) -> None:
    async def fails() -> bool:
        return False

    default.ensure_engine_initialized()
    current().add_check("cache", fails)
    assert await default.db_healthcheck() is True


async def test_a_full_server_is_a_database_that_is_there(
    on_sqlite: Any, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    from reviewpoint_db.health import CheckResult, HealthReport

    refused = CheckResult(name="connection", status="degraded", detail="53300", code="53300")
    report = HealthReport(
        status="degraded",
        cause="saturated",
        connected_in=None,
        latency=None,
        checked_at=None,  # type: ignore[arg-type]
        checks=(refused,),
    )
    default.ensure_engine_initialized()
    monkeypatch.setattr(current(), "health", mock.AsyncMock(return_value=report))
    assert await default.db_healthcheck() is True
    assert not shown(log, "DEBUG Query answered")


async def test_a_wrong_configuration_is_false(fresh: Any, log: list[str]) -> None:
    default.configure(lambda: DatabaseConfig(url="mysql://ann:s3cret@host/db"))
    assert await default.db_healthcheck() is False
    assert "s3cret" not in "".join(log)
