"""SIGTERM seen by a running application: readiness says no, requests in flight finish.

Servers answer SIGTERM themselves, and tell the application only when it is over. A load balancer
has to know before: the handler here is put in front of the server's, and calls it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ("on_sigterm",)

_Handler = Callable[[int, FrameType | None], object]


class _Chained:
    """A signal handler that calls ours, and then whoever was there before."""

    __slots__ = ("active", "begin", "previous")

    def __init__(self, begin: Callable[[], object], previous: _Handler) -> None:
        self.begin = begin
        self.previous = previous
        self.active = True

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if self.active:
            self.begin()
        self.previous(signum, frame)


@contextmanager
def on_sigterm(begin: Callable[[], object]) -> Iterator[None]:
    """Call `begin` when SIGTERM arrives while the body runs, before the handler that was there.

    Outside the main thread, and where nobody handles SIGTERM, nothing is changed: Python allows
    handlers in the main thread only, and a process that dies of the signal has nothing to drain.
    Handlers that others put in front meanwhile stay, whatever the order in which all of them end.

    Example:
        >>> with on_sigterm(database.begin_draining):
        ...     await serve()

    Args:
        begin: Called inside a signal handler, so it must not wait, log or take a lock.
    """
    chained = _install(begin)
    try:
        yield
    finally:
        if chained is not None:
            _remove(chained)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _install(begin: Callable[[], object]) -> _Chained | None:
    if not _in_main_thread():
        return None
    previous = signal.getsignal(signal.SIGTERM)
    if not callable(previous):
        return None
    chained = _Chained(begin, previous)
    # Loops that watch signals by a file descriptor (asyncio's add_signal_handler) still get theirs.
    signal.signal(signal.SIGTERM, chained)
    return chained


def _remove(chained: _Chained) -> None:
    chained.active = False
    if not _in_main_thread():
        return
    current = signal.getsignal(signal.SIGTERM)
    if not isinstance(current, _Chained):
        return
    rest: _Handler = current
    # Also takes away those that ended while another stood in front of them.
    while isinstance(rest, _Chained) and not rest.active:
        rest = rest.previous
    signal.signal(signal.SIGTERM, rest)
