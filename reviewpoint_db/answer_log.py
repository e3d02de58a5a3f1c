"""The log's lines about errors that were answered; what an outage repeats is told by number.

While a database is down, each request is answered with the same error. The first one has its line at
once, with all that is known; those after it are one line every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Final, NamedTuple

from loguru import logger

from reviewpoint_db.context import Origin, current_units, describe_origin
from reviewpoint_db.driver_errors import code_of
from reviewpoint_db.forks import on_fork
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.sqlstate import is_refused_login, level_for, log_hint

__all__ = ["AnswerLog", "log_answer"]

#: Seconds between two lines about the same error.
_EVERY: Final = 10.0
#: Handlers that a line names.
_NAMED: Final = 5
#: Handlers that are counted apart, and kinds of errors; both are few, and bounded all the same.
_HANDLERS: Final = 100
_KINDS: Final = 50
_OTHERS: Final = "others"


def log_answer(error: BaseException, status: int) -> None:
    """Log an error that was answered, and what to do about it.

    Args:
        error: What was answered.
        status: The answer's.
    """
    units, origin = current_units.get(), describe_origin()
    if units and (status == 503 or is_refused_login(error)):
        next(iter(units.values())).activity.answers.note(error, status, origin)
    else:
        _log(error, status, origin)


def _log(error: BaseException, status: int, origin: Origin | None) -> None:
    logger.log(
        level_for(status),
        "{} answered with {}: {}",
        origin or "A request",
        status,
        _described(error),
    )


def _described(error: BaseException) -> str:
    hint = log_hint(error)
    return safe_error(error) + (f"; {hint}" if hint else "")


class _Kind(NamedTuple):
    """What errors have in common that are told in one line."""

    status: int
    name: str
    code: str | None


class _Batch:
    """Those of one kind since the last line about them."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.handlers: Counter[str] = Counter()
        #: What the last one said.
        self.last = ""

    def add(self, error: BaseException, handler: str) -> None:
        known = handler in self.handlers or len(self.handlers) < _HANDLERS
        self.handlers[handler if known else _OTHERS] += 1
        self.last = _described(error)


class AnswerLog:
    """The answers that an outage repeats, of one database.

    Whoever notes one tells what is due of the others; so does the watch, where nobody notes any more.

    Example:
        >>> answers = AnswerLog()
        >>> answers.note(error, 503, Origin("GET /papers"))   # a line
        >>> answers.note(error, 503, Origin("GET /papers"))   # none
        >>> answers.tell()                                    # "1 more answered with 503 ..."
    """

    def __init__(self) -> None:
        #: Whether each has a line of its own, as a test expects that looks for one.
        self.each = False
        self._batches: dict[_Kind, _Batch] = {}
        self._lock = threading.Lock()
        on_fork(self)

    def forget_parent(self) -> None:
        """Begin in a forked child; what the parent has noted, it tells itself."""
        self._batches = {}
        self._lock = threading.Lock()

    def note(self, error: BaseException, status: int, origin: Origin | None) -> None:
        """Take an answered error, and log it if it is the first of its kind for a while.

        Args:
            error: What was answered.
            status: The answer's.
            origin: Whose request it was.
        """
        if self.each:
            _log(error, status, origin)
            return
        self.tell_due()
        kind = _Kind(status, type(error).__name__, code_of(error))
        with self._lock:
            batch = self._batches.get(kind)
            if batch is None and len(self._batches) < _KINDS:
                self._batches[kind] = _Batch(time.monotonic())
            elif batch is not None:
                batch.add(error, origin.handler if origin else "a request")
        if batch is None:
            _log(error, status, origin)

    def tell_due(self) -> None:
        """Log how many there were, of the kinds whose last line is a while ago."""
        self._tell(time.monotonic() - _EVERY)

    def tell(self) -> None:
        """Log how many there were of each kind since its last line."""
        self._tell(float("inf"))

    def _tell(self, before: float) -> None:
        now = time.monotonic()
        with self._lock:
            due = {kind: one for kind, one in self._batches.items() if one.since <= before}
            for kind, batch in due.items():
                if batch.handlers:
                    self._batches[kind] = _Batch(now)
                else:
                    del self._batches[kind]
        for kind, batch in due.items():
            if batch.handlers:
                logger.log(
                    level_for(kind.status),
                    "{} more answered with {} within {:.1f} s ({}); the last: {}",
                    batch.handlers.total(),
                    kind.status,
                    now - batch.since,
                    _named(batch.handlers),
                    batch.last,
                )


def _named(handlers: Counter[str]) -> str:
    most = [(name, count) for name, count in handlers.most_common() if name != _OTHERS][:_NAMED]
    rest = handlers.total() - sum(count for _, count in most)
    return ", ".join(f"{count} {name}" for name, count in [*most, (_OTHERS, rest)] if count)
