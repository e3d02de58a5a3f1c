"""What this package logs while a block runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def logged(level: str = "INFO") -> Iterator[list[str]]:
    """Collect the lines as `LEVEL|message`."""
    lines: list[str] = []
    sink = logger.add(lines.append, level=level, format="{level}|{message}")
    logger.enable("reviewpoint_db")
    try:
        yield lines
    finally:
        logger.disable("reviewpoint_db")
        logger.remove(sink)
