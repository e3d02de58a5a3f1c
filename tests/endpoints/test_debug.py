"""The debug route."""

from __future__ import annotations

import json

from sqlalchemy import text
from sqlalchemy.pool import NullPool

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.debug_info import ConnectionDebugInfo
from reviewpoint_db.endpoints.debug import debug


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
