"""The health routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reviewpoint_db import health as health_module
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.database import Database
from reviewpoint_db.endpoints.health import HEALTH_JSON, health, live, ready
from tests.support.postgres import PostgresServer


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    async with Database(DatabaseConfig(url=sqlite_url, environment="dev")) as database:
        async with database.engine.connect():
            pass
        yield database


async def fails() -> bool:
    return False


async def test_a_healthy_database_answers_as_the_original(database: Database) -> None:
    reply = await health(database)
    assert (reply.status, reply.body) == (200, b'{"status":"healthy","service":"database"}')
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["vary"] == "accept, authorization"
    assert "retry-after" not in reply.headers


async def test_an_unhealthy_database_is_a_503_without_a_word_why(database: Database) -> None:
    database.add_check("cache", fails)
    reply = await health(database)
    assert (reply.status, reply.body) == (503, b'{"status":"unhealthy","service":"database"}')
    assert reply.headers["retry-after"] == "1"


async def test_a_full_pool_is_a_200_and_degraded(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "SATURATED_AFTER", -1.0)
    reply = await health(database, details=True)
    answer = json.loads(reply.body)
    assert (reply.status, answer["status"], answer["cause"]) == (200, "degraded", "saturated")


async def test_details_tell_latency_pool_and_checks(database: Database) -> None:
    database.add_check("cache", fails)
    answer = json.loads((await health(database, details=True)).body)
    assert answer["name"] == "default"
    assert answer["cause"] == "check_failed"
    assert answer["latency"] > 0
    assert answer["connected_in"] > 0
    assert answer["pool"] == {"size": 5, "checked_out": 0, "checked_in": 1, "overflow": 0}
    assert [check["name"] for check in answer["checks"]] == ["connection", "pool", "cache"]
    assert answer["checked_at"].endswith("Z")


@pytest.mark.parametrize(
    ("accept", "ietf"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/health+json", True),
        ("Application/Health+JSON; charset=utf-8", True),
        ("text/html, application/health+json;q=0.9, */*;q=0.1", True),
        ("application/json, application/health+json", True),
        ("application/json, application/health+json;q=0.5", False),
        ("application/json;q=0.4, application/health+json;q=0.5", True),
        ("application/health+json;q=0", False),
        ("application/health+json;q=much", False),
    ],
)
async def test_the_ietf_shape_is_for_those_who_ask_for_it(
    database: Database, accept: str, ietf: bool
) -> None:
    reply = await health(database, accept=accept)
    if ietf:
        assert reply.body == b'{"status":"pass"}'
        assert reply.headers["content-type"] == HEALTH_JSON
    else:
        assert reply.body == b'{"status":"healthy","service":"database"}'


async def test_the_ietf_shape_with_details(database: Database) -> None:
    reply = await health(database, accept=HEALTH_JSON, details=True)
    answer = json.loads(reply.body)
    assert (reply.status, answer["status"], answer["serviceId"]) == (200, "pass", "database")
    assert "notes" not in answer
    (responding,) = answer["checks"]["default:responseTime"]
    assert responding["componentId"] == "default"
    assert responding["componentType"] == "datastore"
    assert responding["observedUnit"] == "ms"
    assert responding["observedValue"] > 0
    assert (responding["status"], "output" in responding) == ("pass", False)
    (connections,) = answer["checks"]["default:connections"]
    assert connections["observedUnit"] == "{connection}"
    assert (connections["observedValue"], connections["idle"], connections["status"]) == (
        0,
        1,
        "pass",
    )


async def test_the_ietf_shape_of_a_failure_has_notes_and_output(database: Database) -> None:
    database.add_check("cache", fails)
    reply = await health(database, accept=HEALTH_JSON, details=True)
    answer = json.loads(reply.body)
    assert (reply.status, answer["status"], answer["notes"]) == (503, "fail", ["check failed"])
    (cache,) = answer["checks"]["cache"]
    assert (cache["componentType"], cache["status"], cache["output"]) == (
        "component",
        "fail",
        "failed",
    )


async def test_the_ietf_shape_warns_of_a_full_pool(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "SATURATED_AFTER", -1.0)
    reply = await health(database, accept=HEALTH_JSON)
    assert (reply.status, reply.body) == (200, b'{"status":"warn"}')


async def test_output_is_a_code_and_never_a_drivers_text(postgres_url: str) -> None:
    url = postgres_url.rpartition("/")[0] + "/no_such_database"
    async with Database(DatabaseConfig(url=url, environment="dev")) as database:
        reply = await health(database, accept=HEALTH_JSON, details=True)
        (responding,) = json.loads(reply.body)["checks"]["default:responseTime"]
        assert (reply.status, responding["output"]) == (503, "3D000")
        assert "observedValue" not in responding
        assert b"no_such_database" not in reply.body


async def test_retry_after_is_a_whole_second_at_least(sqlite_url: str) -> None:
    for configured, told in ((0.0, "1"), (0.4, "1"), (1.2, "2"), (2.6, "3")):
        config = DatabaseConfig(url=sqlite_url, environment="dev", retry_after=configured)
        assert (await ready(Database(config))).headers["retry-after"] == told


def test_live_needs_no_database() -> None:
    reply = live()
    assert (reply.status, reply.body) == (200, b'{"status":"alive"}')
    assert reply.headers["cache-control"] == "no-store"


async def told(database: Database) -> tuple[int, Any]:
    reply = await ready(database)
    return reply.status, json.loads(reply.body)


async def test_ready_is_no_until_started_and_while_draining(sqlite_url: str) -> None:
    database = Database(DatabaseConfig(url=sqlite_url, environment="dev"))
    assert await told(database) == (503, {"status": "not ready", "reason": "starting"})
    async with database:
        assert await told(database) == (200, {"status": "ready"})
        database.begin_draining()
        assert await told(database) == (503, {"status": "not ready", "reason": "draining"})
    assert (await told(database))[0] == 503


async def test_ready_is_no_while_the_database_is_away(
    own_postgres: PostgresServer, own_url: str
) -> None:
    async with Database(DatabaseConfig(url=own_url, environment="dev")) as database:
        own_postgres.stop("immediate")
        assert await told(database) == (503, {"status": "not ready", "reason": "unreachable"})
        own_postgres.start()
        assert await told(database) == (200, {"status": "ready"})


async def test_a_full_pool_or_a_failed_check_stays_ready(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "SATURATED_AFTER", -1.0)
    pool = PoolConfig(size=1, max_overflow=0)
    config = DatabaseConfig(url=postgres_url, environment="dev", pool=pool)
    async with Database(config) as database, database.engine.connect():
        assert (await told(database))[0] == 200
        database.add_check("cache", fails)
        assert (await told(database))[0] == 200
