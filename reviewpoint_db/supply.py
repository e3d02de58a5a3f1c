"""Supply: the tasks that open and close a pool's connections, apart from those who use them.

An opening goes on when the task that waits for it is cancelled, and its connection goes to the next
one. No request waits for a close; the disposal of the pool does, for a limited time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Final

from loguru import logger
from sqlalchemy.util import greenlet_spawn

from reviewpoint_db.backend import REPLICA
from reviewpoint_db.driver_errors import code_of
from reviewpoint_db.pooled import CLOSE_TIMEOUT, Pooled, open_record
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.running_loop import running_loop
from reviewpoint_db.slots import Slots
from reviewpoint_db.sqlstate import is_transient_connect

if TYPE_CHECKING:
    from sqlalchemy.pool import Pool

    from reviewpoint_db.activity import Activity, CloseReason
    from reviewpoint_db.backend import Backend

__all__ = ["UNFIT", "Supply"]

#: Reasons to close a connection that could not be trusted any more.
UNFIT: Final = ("lost", "ping_failed", "invalidated", "unclean")


class Supply:
    """The slots of a pool, and the tasks that open and close its connections.

    Args:
        pool: Whose settings and listeners new connections get.
        size: Connections that are kept.
        limit: How many may be open.
        lifetime: Seconds after which a connection is replaced, -1 for never.
        idle_timeout: Seconds after which an idle burst connection is closed.
        connect_timeout: Seconds for one connect.
        backend: The driver's `Backend`.
        activity: Where everything is recorded.
        queue_target: As in `Slots`.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        size: int,
        limit: float,
        lifetime: float,
        idle_timeout: float,
        connect_timeout: float,
        backend: Backend,
        activity: Activity,
        queue_target: float = 0.0,
    ) -> None:
        self.slots: Slots[Pooled] = Slots(limit, self._begin_opening, queue_target, kept=self._keep)
        self.lifetime = lifetime
        self.idle_timeout = idle_timeout
        self.connect_timeout = connect_timeout
        #: The loop that the last checkout ran in; a pool serves one loop.
        self.loop: asyncio.AbstractEventLoop | None = None
        #: Openings, with their beginning by the loop's clock.
        self.openings: dict[asyncio.Task[None], float] = {}
        #: Closings, with what they close.
        self.closings: dict[asyncio.Task[None], Pooled] = {}
        self.disposed = False
        #: Monotonic seconds of the last `retire()`, and how many there were.
        self.retired_at = float("-inf")
        self._retirements = 0
        self._pool = pool
        self._size = size
        self._backend = backend
        self._activity = activity
        self._upkeep: asyncio.TimerHandle | None = None
        self._upkeep_interval = max(min(idle_timeout / 4, 5.0), 0.01)

    @property
    def _running_loop(self) -> asyncio.AbstractEventLoop:
        assert self.loop is not None
        return self.loop

    @property
    def _to_replica(self) -> bool:
        return getattr(self._pool._dialect, REPLICA, False)  # noqa: SLF001  of the engine's

    # -- opening ----------------------------------------------------------------------------

    def _begin_opening(self) -> None:
        task = self._running_loop.create_task(self._open())
        self.openings[task] = self._running_loop.time()
        task.add_done_callback(self.openings.pop)

    async def _open(self) -> None:
        started = time.monotonic()
        # A count, not the time: where the clock stands still, what is opened next would seem as old.
        retirements = self._retirements
        generation = self.slots.generation
        try:
            record = await open_record(self._pool, self._backend, self.connect_timeout)
        except Exception as error:  # noqa: BLE001 - it is handed to those who wait
            self._activity.connection_failed(safe_error(error), to_replica=self._to_replica)
            lagging = self._backend.password_rotates and code_of(error) == "28P01"
            passing = lagging or is_transient_connect(error)
            tell = self.slots.failed if passing else self.slots.refused
            self._tell(generation, partial(tell, error))
        except BaseException as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._tell(generation, self.slots.gave_up)
                raise
            # A listener or the password's function ended so; the next attempt will, at once.
            ended = ConnectionAbortedError(f"the connect ended in {safe_error(error)}")
            self._tell(generation, partial(self.slots.failed, ended))
            if not isinstance(error, asyncio.CancelledError):
                raise
        else:
            pooled = Pooled(record, self.lifetime)
            if retirements != self._retirements:
                pooled.retire_at = float("-inf")  # the next checkout replaces it
            self._activity.connection_opened(
                pooled.idle_since - started, to_replica=self._to_replica
            )
            if not self._tell(generation, partial(self.slots.opened, pooled)):
                self.abandon_one(pooled)

    def _tell(self, generation: int, what: Callable[[], None]) -> bool:
        """Report to the slots, unless the pool was abandoned meanwhile; return whether it was not."""
        if generation != self.slots.generation:
            return False
        what()
        return True

    def _keep(self) -> None:
        """Schedule the upkeep of what has become idle; in a disposed pool, close it."""
        if self.disposed:
            self.close_idle()
        elif self._upkeep is None:
            # A context of its own: that of the request which is running would live as long.
            self._upkeep = self._running_loop.call_later(
                self._upkeep_interval, self._maintain, context=Context()
            )

    def _maintain(self) -> None:
        """Close what is dead, too old or idle for too long; runs while anything is idle."""
        self._upkeep = None
        now = time.monotonic()
        surplus = self.slots.total - self._size
        for pooled in tuple(self.slots.idle):  # the longest idle first
            if self._backend.is_closed(pooled.driver):
                reason: CloseReason = "lost"
            elif now >= pooled.retire_at:
                reason = "lifetime"
            elif surplus > 0 and now - pooled.idle_since >= self.idle_timeout:
                reason = "idle"
            else:
                continue
            surplus -= 1
            self.slots.idle.remove(pooled)
            self.close_soon(pooled, reason)
        if self.slots.idle:
            self._keep()

    # -- closing ----------------------------------------------------------------------------

    def discard(self, pooled: Pooled, reason: CloseReason) -> None:
        """Cut a connection that cannot be trusted, without saying goodbye to the server."""
        self._backend.terminate(pooled.driver)
        self.close_soon(pooled, reason)

    def close_soon(self, pooled: Pooled, reason: CloseReason) -> None:
        """Close a connection outside of anybody's request; its slot is free afterwards."""
        self._activity.connection_closed(reason)
        task = self._running_loop.create_task(
            self._close(pooled, self.slots.generation, fit=reason not in UNFIT)
        )
        self.closings[task] = pooled
        task.add_done_callback(lambda task: self.closings.pop(task, None))

    async def _close(self, pooled: Pooled, generation: int, *, fit: bool) -> None:
        try:
            await self._backend.close(pooled.driver, CLOSE_TIMEOUT)
            # The driver's connection is closed by now, so that this waits for nothing.
            await greenlet_spawn(pooled.record.close if fit else pooled.record.invalidate)
        except Exception as error:  # noqa: BLE001 - a listener is foreign code
            logger.warning("A connection was closed with an error: {}", safe_error(error))
        finally:
            self._tell(generation, self.slots.free)

    def retire(self) -> None:
        """Cut the idle connections, and have those that are being opened replaced at their checkout."""
        self.retired_at = time.monotonic()
        self._retirements += 1
        while self.slots.idle:
            # No goodbye to the server: it may be frozen, and the slots are needed.
            self.discard(self.slots.idle.popleft(), "invalidated")

    def close_idle(self) -> None:
        """Close all that nobody uses."""
        while self.slots.idle:
            self.close_soon(self.slots.idle.popleft(), "disposed")

    async def end_tasks(self) -> None:
        """Wait until all is closed, for `CLOSE_TIMEOUT`, and cut the rest."""
        deadline = self._running_loop.time() + CLOSE_TIMEOUT
        while tasks := {*self.openings, *self.closings}:
            left = deadline - self._running_loop.time()
            if left > 0:
                await asyncio.wait(tasks, timeout=left)
                continue
            for pooled in self.closings.values():
                self._backend.terminate(pooled.driver)
            for task in self.openings:
                task.cancel()
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)
            return

    # -- the end of all -----------------------------------------------------------------------

    def dispose(self) -> bool:
        """Close what is idle, from any thread, and from now on what comes back.

        Returns:
            Whether `end_tasks()` is to be awaited; else there is nothing to wait for.
        """
        self.disposed = True
        loop = self.loop
        if loop is None or loop.is_closed():
            self.abandon()
            return False
        if loop is not running_loop():
            loop.call_soon_threadsafe(self.close_idle)
            return False
        self.close_idle()
        return True

    def abandon(self) -> None:
        """Cut what is idle or being closed, when the loop is closed or hangs."""
        for pooled in self.slots.idle:
            self.abandon_one(pooled)
        for pooled in self.closings.values():  # counted already
            self._backend.abandon(pooled.driver)
        self.closings.clear()
        self.slots.forget()

    def abandon_one(self, pooled: Pooled) -> None:
        """Cut a connection of a loop that is closed."""
        if pooled.holder is not None:
            self._activity.released(pooled.holder, time.monotonic())
        self._activity.connection_closed("disposed")
        self._backend.abandon(pooled.driver)
