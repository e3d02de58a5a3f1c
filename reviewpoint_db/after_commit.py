"""What runs once a session's data is stored, and never otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from loguru import logger
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.util import await_only

from reviewpoint_db.redaction import safe_error
from reviewpoint_db.session import AFTER_COMMIT

__all__ = ["after_commit", "until_run"]

Running = set[asyncio.Task[None]]
#: Seconds that one function may take: the response waits for it.
_LIMIT: Final = 10.0


def after_commit(session: AsyncSession, fn: Callable[[], Awaitable[Any] | Any]) -> None:
    """Run `fn` once the session's data is stored, and never otherwise.

    A rollback, of a savepoint too, forgets what was registered inside of it. An error of `fn` is
    logged: the data is stored already, so it must not become an error of the request. The COMMIT
    returns when all functions have run, each for 10 seconds at most; when its caller is cancelled
    meanwhile, they run on without it.

    Args:
        session: The session whose next COMMIT counts.
        fn: A function or coroutine function without arguments.

    Example:
        >>> after_commit(db_session, lambda: send_mail(reviewer))
    """
    sync = session.sync_session
    hooks: _Hooks | None = sync.info.get(AFTER_COMMIT)
    if hooks is None:
        hooks = sync.info[AFTER_COMMIT] = _Hooks(sync)
    hooks.add(sync, fn)


async def until_run(running: Running, timeout: float) -> None:
    """Wait until the functions after a COMMIT of this loop have run, also those without a caller.

    Args:
        running: Those of one database.
        timeout: Seconds to wait at most; what then still runs ends with the loop.
    """
    here = asyncio.get_running_loop()
    # Whoever stops the database in such a function would wait for itself.
    others = {task for task in running if task.get_loop() is here} - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=timeout)


class _Hooks:
    """The functions that wait for a session's COMMIT, each with the transaction it was added in.

    The session has them, and not they the session: that would be left to the garbage collector.
    """

    def __init__(self, session: SyncSession) -> None:
        # The event loop itself knows its tasks by weak references only. A session that is not ours
        # has no database that could wait for them.
        running: Running | None = getattr(type(session), AFTER_COMMIT, None)
        self._running = set() if running is None else running
        self._waiting: list[tuple[SessionTransaction | None, Callable[[], Any]]] = []
        self._committed = False
        event.listen(session, "after_commit", self._on_commit)
        event.listen(session, "after_soft_rollback", self._on_rollback)
        event.listen(session, "after_transaction_end", self._on_end)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, session: SyncSession, fn: Callable[[], Any]) -> None:
        self._waiting.append((session.get_nested_transaction(), fn))

    def forget(self) -> None:
        """Forget them all, where the session rolls back without a transaction or is closed."""
        self._waiting.clear()

    def _on_commit(self, session: SyncSession) -> None:
        nested = session.get_nested_transaction()
        if nested is None:
            self._committed = True
            return
        # The savepoint is released: its functions now depend on what is around it.
        self._waiting = [
            (
                nested.parent
                if at is nested and nested.parent and nested.parent.nested
                else None
                if at is nested
                else at,
                fn,
            )
            for at, fn in self._waiting
        ]

    def _on_rollback(self, _session: SyncSession, previous: SessionTransaction) -> None:
        if previous.nested:
            self._waiting = [(at, fn) for at, fn in self._waiting if not _within(at, previous)]
        else:
            self._waiting.clear()

    def _on_end(self, _session: SyncSession, transaction: SessionTransaction) -> None:
        if transaction.parent is not None or not self._committed:
            return
        self._committed = False
        waiting, self._waiting = self._waiting, []
        if waiting:
            await_only(self._run_shielded([fn for _, fn in waiting]))

    async def _run_shielded(self, functions: list[Callable[[], Any]]) -> None:
        """Run them all, also when whoever waits for them is cancelled: what they tell of is stored."""
        task = asyncio.get_running_loop().create_task(_run(functions))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.shield(task)


async def _run(functions: list[Callable[[], Any]]) -> None:
    for fn in functions:
        try:
            async with asyncio.timeout(_LIMIT):
                outcome = fn()
                if isinstance(outcome, Awaitable):
                    await outcome
        except asyncio.CancelledError as error:
            task: Any = asyncio.current_task()
            if task.cancelling():
                raise  # the loop is ending
            logger.error("A function after COMMIT failed: {}", safe_error(error))
        except Exception as error:  # noqa: BLE001 - the data is stored, whatever this was
            logger.error("A function after COMMIT failed: {}", safe_error(error))


def _within(inner: SessionTransaction | None, outer: SessionTransaction) -> bool:
    while inner is not None:
        if inner is outer:
            return True
        inner = inner.parent
    return False
