"""Fixtures of the tests of the Litestar adapter."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig as TheirConfig
from advanced_alchemy.extensions.litestar import SQLAlchemyPlugin

from reviewpoint_db.litestar import ReviewPointDBPlugin, SQLAlchemyAsyncConfig
from tests.support.alchemy import Swap, connection_string

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(params=["theirs", "ours"])
async def swap(request: pytest.FixtureRequest) -> AsyncIterator[Swap]:
    if request.param == "ours":
        yield Swap(SQLAlchemyAsyncConfig, ReviewPointDBPlugin)
        return
    made: list[TheirConfig] = []

    def make(**settings: Any) -> TheirConfig:
        made.append(TheirConfig(**settings))
        return made[-1]

    yield Swap(make, SQLAlchemyPlugin)
    for config in made:
        # Their plugin forgets the engine of every configuration but the process's first.
        await config.get_engine().dispose()


@pytest.fixture
def url(sqlite_url: str) -> str:
    return connection_string(sqlite_url)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Nothing waits for the garbage collector: it is off."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
