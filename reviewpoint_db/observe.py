"""Observation of statements: what each connection runs, since when, and what that tells of a session.

Every statement has its begin and its end noted with the holder of its connection.
That writes a few attributes and adds to bounded figures; nothing is formatted unless somebody looks,
or a statement is worth a warning.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, ExceptionContext, event

from reviewpoint_db.driver_errors import code_of
from reviewpoint_db.pooled import RECORD_KEY, holder_of
from reviewpoint_db.statements import BEGIN, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from reviewpoint_db.activity import Activity, Holder, Work
    from reviewpoint_db.config import DatabaseConfig

__all__ = ["MANY", "observe"]

#: Executions of one statement in one session that are called N+1, in dev.
MANY: Final = 10
#: Statements of one session that are counted apart.
_SHAPES: Final = 500
#: Seconds for which a slow statement of one handler is not named again.
_EPISODE: Final = 60.0
#: Slow statements whose last warning is remembered.
_REMEMBERED: Final = 500


def observe(engine: Engine, activity: Activity, config: DatabaseConfig) -> None:
    """Have an engine's statements recorded.

    Args:
        engine: One with our pool; connections of other pools have no holder to note anything with.
        activity: Where they are recorded.
        config: Says what is slow, and whether N+1 is looked for.
    """
    observer = _Observer(activity, config)
    # Around the dialect's verbs rather than by the engine's events: a single listener on connections
    # makes each of them, and each statement, a tenth more expensive.
    dialect: Any = engine.dialect
    dialect.do_execute = observer.executing(dialect.do_execute)
    dialect.do_executemany = observer.executing(dialect.do_executemany)
    dialect.do_commit = _ending(dialect.do_commit, "COMMIT")
    dialect.do_rollback = _ending(dialect.do_rollback, "ROLLBACK")
    event.listen(engine, "handle_error", observer.failed)


def _ending(verb: Callable[[Any], None], statement: str) -> Callable[[Any], None]:
    """Note that the transaction is about to be ended."""

    def end(connection: Any) -> None:
        info = connection.record_info
        pooled = info.get(RECORD_KEY) if info else None
        holder = pooled.holder if pooled is not None else None
        if holder is not None:
            holder.statement = statement
            holder.running = True
            holder.changed = time.monotonic()
        verb(connection)

    return end


class _Observer:
    """What is noted of one engine's statements."""

    def __init__(self, activity: Activity, config: DatabaseConfig) -> None:
        self._activity = activity
        self._slow = config.slow_statement
        self._counts = config.effective_environment == "dev"
        self._told: dict[tuple[str, str], float] = {}

    def executing(self, execute: Callable[..., None]) -> Callable[..., None]:
        """Return a verb of the dialect that notes when a statement begins and ends."""
        activity, slow, counts = self._activity, self._slow, self._counts

        def observed(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
            # Written out here, since each call counts that is made for every statement: a
            # connection that executes is neither closed nor invalidated.
            info = context.root_connection.connection.record_info if context is not None else None
            pooled = info.get(RECORD_KEY) if info else None
            holder = pooled.holder if pooled is not None else None
            if holder is None:
                execute(cursor, statement, parameters, context)
                return
            # Before lists of values are written out: one text for all their lengths.
            compiled = context.compiled
            holder.statement = text = statement if compiled is None else compiled.string
            holder.running = True
            holder.changed = started = time.monotonic()
            execute(cursor, statement, parameters, context)
            holder.running = False
            holder.changed = now = time.monotonic()
            seconds = now - started
            activity.statement_done(holder, text, seconds, now)
            if text != BEGIN:
                holder.statements += 1
                if (work := holder.work) is not None:
                    work.statements += 1
                    work.seconds += seconds
                    if counts:
                        self._count(holder, work, text)
            if seconds >= slow:
                self._warn_of_slow(holder, text, seconds, now)
            # Drivers that fetch as the application reads do not know yet: they say -1.
            if activity.is_fed and cursor.description is not None and cursor.rowcount >= 0:
                activity.rows_returned(cursor.rowcount, text)

        return observed

    def failed(self, context: ExceptionContext) -> None:
        """Note a failure."""
        connection = context.connection
        holder = holder_of(connection) if connection is not None else None
        if holder is None or not holder.running:
            return
        now = time.monotonic()
        code = code_of(context.original_exception) or type(context.original_exception).__name__
        self._activity.statement_failed(
            code, now - holder.changed, holder.statement or "", holder.handler or holder.task_name
        )
        holder.running = False
        holder.changed = now

    def _count(self, holder: Holder, work: Work, statement: str) -> None:
        """Count the executions of one statement in one session."""
        if work.shapes is None:
            work.shapes = {}
        times = work.shapes.get(statement, 0) + 1
        if times > 1 or len(work.shapes) < _SHAPES:
            work.shapes[statement] = times
        if times == MANY:
            self._activity.warn(
                "n_plus_one",
                f"{holder.name} executed one statement {MANY} times in one session: "
                f"{shape_of(statement)}. Load the rows at once (selectinload, or `where id in`).",
                origin=holder.origin,
            )

    def _warn_of_slow(self, holder: Holder, statement: str, seconds: float, now: float) -> None:
        shape, name = shape_of(statement), holder.handler or holder.task_name
        if now - self._told.get((name, shape), float("-inf")) < _EPISODE:
            return
        if len(self._told) >= _REMEMBERED:
            self._told.clear()
        self._told[name, shape] = now
        self._activity.warn(
            "slow_statement",
            f"{holder.name} executed a statement for {seconds:.2f} s (slow_statement is "
            f"{self._slow:g} s): {shape}",
            origin=holder.origin,
        )
