"""Fixtures of the tests of the Litestar adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from loguru import logger

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What loguru's sinks get to see, from INFO on."""
    found: list[str] = []
    sink = logger.add(found.append, level="INFO", format="{level}|{message}")
    yield found
    logger.remove(sink)
