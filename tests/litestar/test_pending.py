"""Migrations that are pending show in the health of a Litestar application."""

from __future__ import annotations

from pathlib import Path

from advanced_alchemy.extensions.litestar import AlembicAsyncConfig
from litestar import Litestar
from litestar.testing import AsyncTestClient

from reviewpoint_db import DatabaseConfig, ReviewPointDBPlugin


async def test_health_tells_pending_migrations(sqlite_url: str, tmp_path: Path) -> None:
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").touch()
    (scripts / "script.py.mako").touch()
    (scripts / "versions" / "one.py").write_text('revision = "a1"\ndown_revision = None\n')
    plugin = ReviewPointDBPlugin(
        DatabaseConfig(url=sqlite_url, environment="dev"),
        alembic_config=AlembicAsyncConfig(script_location=str(scripts)),
    )
    app = Litestar(plugins=[plugin], openapi_config=None)
    async with AsyncTestClient(app) as client:
        reply = await client.get("/db/health")
        assert (reply.status_code, reply.json()["cause"]) == (200, "migrations_pending")
        assert "the migrations lead to a1" in reply.text
