"""The sessions of the original module: tested, timed, rolled back on errors, always closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from loguru import logger
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.pool import StaticPool

from reviewpoint_db.context import current_units
from reviewpoint_db.default_log import ORIGIN, log_pool_state, log_worker_info
from reviewpoint_db.redaction import safe_error

if TYPE_CHECKING:
    from reviewpoint_db.default_state import DefaultState

__all__ = ("DEFAULT_NAME", "DefaultSessions")

#: The database that is the process-wide one while its application runs.
DEFAULT_NAME: Final = "default"

_Opener = Callable[[], AbstractAsyncContextManager[AsyncSession]]


class DefaultSessions:
    """What stands behind `get_async_session`.

    Args:
        state: Says which database is current, and what was set from outside.
        ensure: Builds the engine where there is none.
    """

    def __init__(self, state: DefaultState, ensure: Callable[[], None]) -> None:
        self._state = state
        self._ensure = ensure
        # Strong references: the loop keeps weak ones, and a cancelled caller none.
        self._closing: set[asyncio.Future[None]] = set()

    async def watched(self, opened: _Opener) -> AsyncGenerator[AsyncSession, None]:
        """Yield a session; time it, and log what went wrong in it with the state of the pool."""
        started = time.perf_counter()
        log_worker_info()
        try:
            async with opened() as session:
                yield session
        except Exception as error:
            self._log_failure(error, time.perf_counter() - started)
            raise
        logger.debug("Session completed in {:.3f}s{}", time.perf_counter() - started, ORIGIN)

    @asynccontextmanager
    async def own(self) -> AsyncIterator[AsyncSession]:
        """Open a session of the caller's own, after a connection passed its test."""
        self._ensure()
        started = time.perf_counter()
        database = self._state.database_behind("AsyncSessionLocal")
        opened = self._foreign() if database is None else database.session()
        async with opened as session:
            logger.debug("Session created in {:.3f}s{}", time.perf_counter() - started, ORIGIN)
            await self._test_connection(session.bind if database is None else database.engine)
            yield session
        logger.debug("Session closed{}", ORIGIN)

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[AsyncSession]:
        """Use the session of the request, where a middleware of ours runs it; else one's own."""
        unit = (current_units.get() or {}).get(DEFAULT_NAME)
        if unit is None or self._state.patched():
            async with self.own() as session:
                yield session
            return
        session = unit.session
        try:
            yield session
        except Exception:
            # An exception handler may answer 200 to it; that must not store half of the work.
            await _roll_back(session)
            raise

    @asynccontextmanager
    async def _foreign(self) -> AsyncIterator[AsyncSession]:
        """Use a sessionmaker that was set from outside, as the original used its own."""
        self._state.count("_session_creation_count")
        session: AsyncSession = self._state.AsyncSessionLocal()
        try:
            yield session
        except Exception:
            await _roll_back(session)
            raise
        finally:
            closing = asyncio.ensure_future(session.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            # A cancellation must not keep the connection from its pool.
            await asyncio.shield(closing)

    async def _test_connection(self, bind: Any) -> None:
        """Have the pool verify a connection, outside of the session's transaction.

        A `SELECT 1` in the transaction would fix its isolation level before anybody chose one.
        """
        # A StaticPool's one connection is shared: giving it back would roll back what others do.
        if not isinstance(bind, AsyncEngine) or isinstance(bind.pool, StaticPool):
            return
        started = time.perf_counter()
        try:
            async with bind.connect():
                pass
        except Exception as error:
            seconds, text = time.perf_counter() - started, safe_error(error)
            logger.error("Connection test failed in {:.3f}s: {}{}", seconds, text, ORIGIN)
            if self._state.owner_of(bind) is None:
                self._state.count("_connection_failures")
            raise
        logger.debug("Connection test passed in {:.3f}s{}", time.perf_counter() - started, ORIGIN)

    def _log_failure(self, error: Exception, seconds: float) -> None:
        if isinstance(error, SQLAlchemyError):
            text = safe_error(error)
            logger.error("Database error after {:.3f}s: {}{}", seconds, text, ORIGIN)
            engine = getattr(self._state, "engine", None)
            if engine is not None:
                log_pool_state(engine, "After failed operation")
            return
        # A 404 raised through a dependency is an answer, not a failure of anything.
        status = getattr(error, "status_code", None)
        level = "DEBUG" if isinstance(status, int) and status < 500 else "ERROR"
        text = safe_error(error)
        logger.log(level, "Unexpected error after {:.3f}s: {}{}", seconds, text, ORIGIN)


async def _roll_back(session: AsyncSession) -> None:
    try:
        await session.rollback()
    except Exception as error:  # noqa: BLE001  the error that led here is the one to tell
        logger.error("Session rollback failed: {}{}", safe_error(error), ORIGIN)
    else:
        logger.debug("Session rollback completed{}", ORIGIN)
