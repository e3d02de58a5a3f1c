"""The original module's log lines about a process and a pool, and who they are written for."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from loguru import logger

from reviewpoint_db.context import describe_origin
from reviewpoint_db.debug_info import pool_gauges, pool_invalidated, worker_id
from reviewpoint_db.redaction import safe_error, safe_url

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ("ORIGIN", "log_pool_state", "log_worker_info")


class _OriginSuffix:
    """The handler and request id at a line's end, asked for only when the line is written."""

    __slots__ = ()

    def __format__(self, _: str) -> str:
        origin = describe_origin()
        return f" for {origin}" if origin else ""


ORIGIN: Final = _OriginSuffix()


def log_worker_info() -> tuple[str, int, int]:
    """Log which worker, process and thread this is.

    Returns:
        The pytest-xdist worker ("main" without one), the process id and the thread id.
    """
    info = worker_id(), os.getpid(), threading.get_ident()
    logger.debug("Worker: {}, PID: {}, Thread: {}", *info)
    return info


def log_pool_state(engine: AsyncEngine, context: str) -> None:
    """Log the state of an engine's pool, without credentials; never raises.

    Args:
        engine: The engine to describe.
        context: What happened just now, as the beginning of the line.
    """
    try:
        gauges = pool_gauges(engine.pool)
        invalidated = pool_invalidated(engine.pool)
        url = safe_url(engine.url)
    except Exception as error:  # noqa: BLE001  a log line about a fault must not be another fault
        logger.warning("Failed to get pool state: {}", safe_error(error))
        return
    logger.info("{} - Worker: {}{}", context, worker_id(), ORIGIN)
    logger.info("Pool size: {}", gauges["size"])
    logger.info("Checked out: {}", gauges["checked_out"])
    logger.info("Checked in: {}", gauges["checked_in"])
    logger.info("Overflow: {}", gauges["overflow"])
    logger.info("Invalid: {}", invalidated)
    logger.info("DB URL: {}", url)
