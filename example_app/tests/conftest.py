"""What the tests of this application need: its tables, and a client."""

from collections.abc import AsyncIterator, Iterator

import pytest
from advanced_alchemy.extensions.litestar import AlembicAsyncConfig
from litestar import Litestar
from litestar.testing import AsyncTestClient, TestClient

from example_app.app import HERE, create_app
from example_app.tests.service import Service


@pytest.fixture(scope="session")
def db_alembic_config() -> AlembicAsyncConfig:
    """Have the test database made by the application's own migrations, once a run."""
    return AlembicAsyncConfig(script_location=str(HERE / "migrations"))


@pytest.fixture
def client(db_sandbox: None) -> Iterator[TestClient[Litestar]]:  # noqa: ARG001 - the client's world
    """The application as it is in production; what it stores is gone after the test."""
    with TestClient(create_app()) as client:
        yield client


@pytest.fixture
async def service(db_sandbox: None) -> AsyncIterator[Service]:  # noqa: ARG001 - the client's world
    """The same, with a verb for each thing that a person does."""
    async with AsyncTestClient(create_app(), raise_server_exceptions=False) as http:
        yield Service(http)
