"""Failures: which statements failed lately, whose they were, and beside how many that did not."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Final, NamedTuple

__all__ = ["LATELY", "Failing", "Failures"]

#: Seconds for which a failure counts.
LATELY: Final = 10.0
#: Failures that are remembered, of however many.
_REMEMBERED: Final = 1000
#: What the application itself provokes, and answers: a row that is there already, say.
_INTEGRITY: Final = ("23", "SQLITE_CONSTRAINT", "IntegrityError")


class Failing(NamedTuple):
    """Failures of the last seconds that have code and handler in common."""

    code: str
    handler: str
    number: int


class _Failure(NamedTuple):
    at: float
    code: str
    handler: str
    done: int


class Failures:
    """The last failures of statements; nothing is noted of those that succeed.

    Integrity violations are left out: applications provoke and answer them.

    Example:
        >>> failures = Failures()
        >>> failures.note("42P01", "GET /missing", done=7)
        >>> failures.lately(done=9)
        ([Failing(code='42P01', handler='GET /missing', number=1)], 2)
    """

    def __init__(self) -> None:
        self._last: deque[_Failure] = deque(maxlen=_REMEMBERED)

    def note(self, code: str, handler: str, done: int) -> None:
        """Note a failure.

        Args:
            code: The database's code, or the error's class.
            handler: Whose statement it was.
            done: How many have succeeded by now, since the start.
        """
        if not code.startswith(_INTEGRITY):
            self._last.append(_Failure(time.monotonic(), code, handler, done))

    def lately(self, done: int) -> tuple[list[Failing], int]:
        """Return what has failed in the last `LATELY` seconds, and how many succeeded meanwhile.

        Args:
            done: How many have succeeded by now, since the start.
        """
        oldest = time.monotonic() - LATELY
        last = [failure for failure in self._last if failure.at >= oldest]
        counts = Counter((failure.code, failure.handler) for failure in last)
        failing = [Failing(*key, count) for key, count in counts.most_common()]
        return failing, done - last[0].done if last else 0
