"""Repeats a transaction after a serialization failure or a deadlock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar

from loguru import logger
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db.driver_errors import code_of
from reviewpoint_db.session_state import state_of
from reviewpoint_db.sqlstate import is_serialization_failure

__all__ = ["run_with_retries"]

_T = TypeVar("_T")
#: Seconds before the first repetition, doubled each time up to the longest; jittered.
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 1.0


async def run_with_retries(
    session: Callable[[], AbstractAsyncContextManager[AsyncSession]],
    fn: Callable[[AsyncSession], Awaitable[_T]],
    *,
    retries: int,
    isolation_level: str | None = None,
) -> _T:
    """Run `fn` in a transaction of its own and commit it, `retries` times more at most.

    Args:
        session: Opens a session.
        fn: The work; must have no effects outside of its session.
        retries: How often a serialization failure or deadlock is repeated.
        isolation_level: For each of the transactions.
    """
    attempt = 0
    while True:
        async with session() as opened:
            try:
                return await _run_once(opened, fn, isolation_level)
            except SQLAlchemyError as error:
                # What the function has stored by a COMMIT of its own must not be stored twice.
                stored = state_of(opened).committed
                if attempt >= retries or stored or not is_serialization_failure(error):
                    raise
                logger.debug("A transaction lost ({}) and is run again", code_of(error))
        pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        attempt += 1


async def _run_once(
    session: AsyncSession,
    fn: Callable[[AsyncSession], Awaitable[_T]],
    isolation_level: str | None,
) -> _T:
    if isolation_level is not None:
        await session.connection(execution_options={"isolation_level": isolation_level})
    result = await fn(session)
    await session.commit()
    return result
