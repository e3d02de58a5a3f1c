"""The example as its users see it: through HTTP, on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from litestar.testing import AsyncTestClient

from example_app.app import create_app
from reviewpoint_db import DatabaseConfig
from tests.example.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    app = create_app(DatabaseConfig(url=database_url, environment="test"))
    async with AsyncTestClient(app) as http:
        yield Service(http)
