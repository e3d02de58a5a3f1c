"""Fixtures of the original module's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from loguru import logger

from reviewpoint_db import default, logs
from tests.support.default import config_of


@pytest.fixture
async def fresh(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """The module as it is after the import; what a test builds is closed at its end."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    default._state.__init__()  # type: ignore[misc]
    yield default
    for database in default._state._built:
        await database.stop()
    default._state.__init__()  # type: ignore[misc]
    logs.disable()


@pytest.fixture
def on_sqlite(fresh: Any, sqlite_url: str) -> Any:
    default.configure(config_of(sqlite_url))
    return fresh


@pytest.fixture
def on_postgres(fresh: Any, postgres_url: str) -> Any:
    default.configure(config_of(postgres_url))
    return fresh


@pytest.fixture
def on_both(fresh: Any, database_url: str) -> Any:
    default.configure(config_of(database_url))
    return fresh


@pytest.fixture
def log() -> Iterator[list[str]]:
    """All lines of the package, as `LEVEL message`."""
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, format="{level} {message}")
    logs.enable()
    yield lines
    logger.remove(sink)
    logs.disable()
