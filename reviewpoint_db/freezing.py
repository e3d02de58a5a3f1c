"""Spares an application the garbage collector's long pauses: what its start-up made is not searched.

A full collection looks at every object there is, and an application's modules, routes and models
are many that never become garbage: on one core such a pause takes 80 ms, in the middle of requests.
`gc.freeze` (https://docs.python.org/3/library/gc.html#gc.freeze) takes them out of its sight.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from reviewpoint_db.forks import on_fork

__all__ = ["frozen"]


class _Count:
    """How many applications of this process run frozen; the collector is the process's."""

    def __init__(self) -> None:
        self.running = 0
        self.lock = threading.Lock()
        on_fork(self)

    def forget_parent(self) -> None:
        """Begin in a forked child, where a thread of the parent's would never let go of the lock."""
        self.lock = threading.Lock()


_count = _Count()


@contextmanager
def frozen() -> Iterator[None]:
    """Collect what the start-up left, and keep the collector off all the rest until the exit.

    Several applications of a process may do so at once; the last one to end thaws.
    """
    with _count.lock:
        _count.running += 1
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        with _count.lock:
            _count.running -= 1
            if not _count.running:
                gc.unfreeze()
