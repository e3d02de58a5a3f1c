"""An event loop in a thread of its own, reached from any other loop and from none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["LoopThread"]

_T = TypeVar("_T")
#: Seconds that a call without a loop may take: creating and migrating databases is the longest.
_CALL_TIMEOUT = 120.0


class LoopThread:
    """A running event loop that belongs to no test.

    A connection of asyncpg works in one loop only, and a test's application may run in any. So the
    kit's connections live here.

    Example:
        >>> owner = LoopThread()
        >>> owner.run(connect())       # from a fixture
        >>> await owner.call(work())   # from whatever loop
        >>> owner.stop()
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self.loop.run_forever, name="reviewpoint_db-testing", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T], timeout: float = _CALL_TIMEOUT) -> _T:
        """Run a coroutine there, and wait for it at most `timeout` seconds; blocks this thread."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()  # after Ctrl-C, what is under way must not outlive who waits for it
            raise

    async def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine there; whoever is cancelled here cancels it there."""
        if asyncio.get_running_loop() is self.loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def stop(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()
