"""What the live page needs of a process all the time: its last minutes, and a line to the others."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loguru import logger

from reviewpoint_db.history import Gauges, History
from reviewpoint_db.siblings import Answer, Siblings

if TYPE_CHECKING:
    from reviewpoint_db.config import DatabaseConfig
    from reviewpoint_db.database import Database
    from reviewpoint_db.gauges import PoolGauges
    from reviewpoint_db.health_report import HealthReport
    from reviewpoint_db.holder import HolderSnapshot
    from reviewpoint_db.server_view import ServerView
    from reviewpoint_db.snapshots import ActivitySnapshot

__all__ = ["Live"]


_NOT_SERVING: Final = "this process was not started as a server"
#: Seconds for which a look at the server is shown again.
_VIEW_LASTS: Final = 1.0
#: Seconds for which a health check is shown again; one that is not healthy as long as a look.
_HEALTH_LASTS: Final = 5.0
#: Seconds that the page waits for one at most: it comes every two seconds.
_HEALTH_WAIT: Final = 1.0


class Live:
    """The memory of one process for the live page; nothing runs before `serving()`.

    Args:
        database: Whose pools are looked at.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.history = History()
        #: One for each loop that serves; to the other workers they are one.
        self._siblings: list[Siblings] = []
        self._token = secrets.token_hex(4)
        self._view: ServerView | None = None
        self._viewed = 0.0
        self._checks: set[asyncio.Task[HealthReport]] = set()
        #: Why the other workers of this host cannot be asked, if that is so.
        self.alone_because: str | None = _NOT_SERVING

    @asynccontextmanager
    async def serving(self, answer: Callable[[], bytes]) -> AsyncIterator[None]:
        """Keep the history, and answer the other workers, for as long as the block runs.

        Args:
            answer: Makes this process's report for the others.
        """
        keeping = asyncio.create_task(self.history.keep(self._look))
        async with AsyncExitStack() as stack:
            stack.callback(keeping.cancel)
            try:
                siblings = Siblings(_identity(self._database.config), token=self._token)
                await stack.enter_async_context(siblings.serving(answer))
            except OSError as error:
                self.alone_because = error.strerror or str(error)
                logger.warning("The live page shows this worker alone: {}", self.alone_because)
            else:
                self.alone_because = None
                self._siblings.append(siblings)
                stack.callback(self._siblings.remove, siblings)
            yield

    async def ask_others(self, timeout: float) -> list[Answer]:
        """Ask the other workers of this host.

        Args:
            timeout: Seconds for all of them together.
        """
        serving = tuple(self._siblings)
        return await serving[-1].ask(timeout) if serving else []

    async def server(self, holders: tuple[HolderSnapshot, ...] | None = None) -> ServerView:
        """The server's view; one look a second is enough for however many pages.

        Args:
            holders: Who holds connections, as somebody has just seen it.
        """
        now = time.monotonic()
        if self._view is None or now - self._viewed > _VIEW_LASTS:
            self._viewed = now
            self._view = await self._database.look_at_server(holders)
        return self._view

    async def health(self) -> HealthReport | None:
        """The last health check, anew where it is old; within a second, so maybe the one before.

        Returns:
            None where nobody has asked yet, and a database that was not started is not asked.
        """
        last = self._database.last_health
        well = last.report is not None and last.report.status != "unhealthy"
        doubtful = self._view is not None and self._view.error is not None
        lasts = _HEALTH_LASTS if well and not doubtful else _VIEW_LASTS
        if self._database.started and last.age > lasts:
            check = asyncio.create_task(self._database.health())
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)
            await asyncio.wait({check}, timeout=_HEALTH_WAIT)
        return last.report

    def _look(self) -> tuple[Gauges, ActivitySnapshot]:
        return self.gauges(self._database.gauges()), self._database.activity.snapshot()

    def gauges(self, pools: PoolGauges) -> Gauges:
        """Take what the page shows of the pools.

        Args:
            pools: Those of all event loops; before the first there is one that will be made.
        """
        config, limit = self._database.config, pools.limit
        if not pools.pools:
            limit = config.effective_pool.size + config.effective_pool.max_overflow
            if "poolclass" in config.engine_options or "pool" in config.engine_options:
                limit = None  # the application's own kind of pool, of which nothing is known
        return Gauges(out=pools.out, idle=pools.idle, waiting=pools.waiting, limit=limit)


def _identity(config: DatabaseConfig) -> str:
    """Say which database it is, for processes that may have been started in different folders."""
    where = config.safe_url
    if config.in_memory:
        where = secrets.token_hex(8)  # nobody else sees it
    elif config.backend == "sqlite":
        where = str(Path(config.sqlalchemy_url.database or "").absolute())
    return f"{config.name}\0{where}"
