"""The debug route."""

from __future__ import annotations

import json

from sqlalchemy import text
from sqlalchemy.pool import NullPool

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.debug_info import ConnectionDebugInfo
from reviewpoint_db.endpoints.debug import debug, debug_server, debug_stacks
from tests.support.postgres import PostgresServer


async def test_debug_tells_the_originals_keys_and_what_lies_behind(database_url: str) -> None:
    async with Database(DatabaseConfig(url=database_url, environment="dev")) as database:
        async with database.session(origin="a job") as session:
            await session.execute(text("select 1"))
            reply = debug(database)
        answer = json.loads(reply.body)
        assert reply.status == 200
        assert set(ConnectionDebugInfo.__annotations__) - {"pool_error"} <= set(answer)
        assert answer["pool_checked_out"] == answer["pool"]["checked_out"] == 1
        assert answer["pool"]["config"]["size"] == answer["pool"]["size"]
        assert answer["environment"] == "dev"
        assert answer["totals"]["acquired"] == 1
        assert answer["timings"]["wait"]["count"] == 1
        assert answer["timings"]["wait"]["p99"] > 0
        assert answer["timings"]["use"]["p50"] is None
        (holder,) = answer["holders"]
        assert (holder["origin"], holder["abandoned"]) == ("a job", False)
        assert "***" in answer["url"] or database_url.startswith("sqlite")
        assert "p%40ss" not in reply.body.decode()


async def test_debug_works_before_there_is_an_engine(sqlite_url: str) -> None:
    database = Database(DatabaseConfig(url=sqlite_url, environment="dev"))
    answer = json.loads(debug(database).body)
    assert answer["engine_initialized"] is False
    assert answer["pool_size"] is None
    assert database.existing_engine is None


async def test_debug_names_a_pool_without_gauges(sqlite_url: str) -> None:
    config = DatabaseConfig(
        url=sqlite_url, environment="dev", engine_options={"poolclass": NullPool}
    )
    async with Database(config) as database:
        assert database.engine is not None
        answer = json.loads(debug(database).body)
        assert "NullPool" in answer["pool_error"]


async def test_debug_tells_statements_sessions_and_warnings(database_url: str) -> None:
    config = DatabaseConfig(url=database_url, environment="dev", slow_statement=0)
    async with Database(config) as database:
        async with database.session(origin="a job") as session:
            await session.execute(text("select 'secret'"))
        answer = json.loads(debug(database).body)
        assert answer["timings"]["statements"]["count"] >= 1
        assert answer["sessions"]["a job"]["count"] == 1
        assert answer["slowest_sessions"][0]["name"] == "a job"
        assert "select ?" in {each["name"] for each in answer["slowest_statements"]}
        assert answer["warnings"]["counts"]["slow_statement"] >= 1
        assert "a job" in {each["origin"] for each in answer["warnings"]["recent"]}
        assert answer["statement_errors"] == {}
        assert answer["waiters"] == []
        assert answer["pool"]["gauges"]["limit"] == 15
        assert "secret" not in str(answer)


async def test_stacks_are_read_when_they_are_asked_for(sqlite_url: str) -> None:
    config = DatabaseConfig(url=sqlite_url, environment="dev")
    async with Database(config) as database, database.session() as session:
        await session.execute(text("select 1"))
        (holder,) = json.loads(debug(database).body)["holders"]
        assert (holder["stack"], holder["where"]) == ([], None)
        (holder,) = json.loads(debug_stacks(database).body)["holders"]
        assert holder["stack"][0]["line"] > 0
        assert "test_debug.py" in holder["where"]


async def test_the_servers_side_is_a_route(database_url: str) -> None:
    async with Database(DatabaseConfig(url=database_url, environment="dev")) as database:
        async with database.session(origin="a job") as session:
            await session.execute(text("select 1"))
            reply = await debug_server(database)
        answer = json.loads(reply.body)
        assert reply.status == 200
        assert answer["connections"][0]["holder"]["origin"] == "a job"


async def test_without_the_server_its_side_is_a_503(own_postgres: PostgresServer) -> None:
    url = own_postgres.url("no_such_database")
    async with Database(DatabaseConfig(url=url, environment="dev")) as database:
        reply = await debug_server(database)
        assert reply.status == 503
        assert "3D000" in json.loads(reply.body)["error"]
