"""The end of engines: wait for what is in use, close within a bound, cut the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from reviewpoint_db.engine import elastic_pool
from reviewpoint_db.pool import CLOSE_TIMEOUT

__all__ = ["dispose", "dispose_all", "until_returned"]

#: Seconds between two looks at what is still in use.
_STEP: Final = 0.02


async def until_returned(
    engines: Callable[[], Iterable[AsyncEngine | None]], timeout: float
) -> bool:
    """Wait until no connection is in use.

    Args:
        engines: Asked again at each look, since engines come and go.
        timeout: Seconds to wait at most.

    Returns:
        Whether everything was returned in time.
    """
    deadline = time.monotonic() + timeout
    # Polled, because a connection may be returned in any of several loops and threads.
    while sum(map(_in_use, engines())):
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_STEP)
    return True


def _in_use(engine: AsyncEngine | None) -> int:
    pool = elastic_pool(engine) if engine is not None else None
    return pool.checkedout() if pool is not None else 0


async def dispose(engine: AsyncEngine, loop: asyncio.AbstractEventLoop | None) -> None:
    """Dispose of an engine in its own loop; cut its connections when that is not to be had.

    Args:
        engine: The engine.
        loop: The loop that uses it; None for none.
    """
    disposal = _dispose_here(engine)
    if loop is None or loop is asyncio.get_running_loop():
        await disposal
        return
    try:
        remote = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(disposal, loop))
    except RuntimeError:  # that loop is closed
        disposal.close()
    else:
        await asyncio.wait({remote}, timeout=2 * CLOSE_TIMEOUT)
        if remote.done() and not remote.cancelled() and remote.exception() is None:
            return
    # That loop hangs in somebody's code, or came to its end before it got to this.
    pool = elastic_pool(engine)
    if pool is not None:
        pool.abandon()


async def dispose_all(
    engines: Iterable[tuple[asyncio.AbstractEventLoop | None, AsyncEngine]],
) -> None:
    """Dispose of engines at the same time: of several hosts that are frozen each has a bound.

    Args:
        engines: Each with the loop that uses it.
    """
    await asyncio.gather(*(dispose(engine, loop) for loop, engine in engines))


async def _dispose_here(engine: AsyncEngine) -> None:
    """Close an engine's connections; cut those that are still out or do not answer."""
    pool = elastic_pool(engine)
    if pool is not None:
        pool.terminate()
    try:
        await asyncio.wait_for(engine.dispose(), CLOSE_TIMEOUT + 1)
    except TimeoutError:
        if pool is not None:
            pool.abandon()
