"""The running example on a database of the test's own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from example_app.app import create_app
from example_app.tests.service import Service
from reviewpoint_db import DatabaseConfig, PoolConfig
from tests.support.asgi import client, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from litestar import Litestar


def example(url: str) -> Litestar:
    # Under xdist the pool would be 1 + 1, and three requests at once would wait for each other.
    pool = PoolConfig(size=5, max_overflow=10)
    return create_app(DatabaseConfig(url=url, environment="test", pool=pool))


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[Service]:
    """Run the example; other than Litestar's test client, this one sends requests side by side."""
    app = example(url)
    async with running(app), client(app) as http:
        yield Service(http)
