"""The example as its users see it: through HTTP, on SQLite and on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.example.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from example_app.tests.service import Service


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    async with serving(database_url) as service:
        yield service


@pytest.fixture
async def postgres_service(postgres_url: str) -> AsyncIterator[Service]:
    async with serving(postgres_url) as service:
        yield service
