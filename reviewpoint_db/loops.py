"""One engine per event loop: a connection of asyncpg cannot cross loops.

Used from a second loop or thread it fails at best and crashes the interpreter at worst. A loop that
was closed loses its engine without being touched; after a fork the child starts with none.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from sqlalchemy.ext.asyncio import AsyncEngine

from reviewpoint_db.engine import elastic_pool
from reviewpoint_db.forks import on_fork
from reviewpoint_db.running_loop import running_loop

__all__ = ["EnginesByLoop", "StartedLoops"]

_Loop = asyncio.AbstractEventLoop


class EnginesByLoop:
    """The engines of one database, made on first use by `create`, each once a loop.

    Args:
        create: Makes an engine; called under the lock, so that racing threads get one.
    """

    def __init__(self, create: Callable[[], AsyncEngine]) -> None:
        self._create = create
        self._lock = threading.RLock()
        self._engines: dict[_Loop, AsyncEngine] = {}
        self._unadopted: AsyncEngine | None = None
        # What a fork inherited is never collected: closing it would disturb the parent.
        self._inherited: list[object] = []
        self._latest: tuple[_Loop, AsyncEngine] | None = None
        on_fork(self)

    def current(self) -> AsyncEngine:
        """Return the running loop's engine; without a loop, the one that the first loop adopts."""
        loop = running_loop()
        latest = self._latest
        if latest is not None and latest[0] is loop:
            return latest[1]
        with self._lock:
            if loop is None:
                engine = self._unadopted or next(iter(self._engines.values()), None)
                if engine is None:
                    engine = self._unadopted = self._create()
                return engine
            engine = self._engines.get(loop)
            if engine is None:
                self._drop_closed_loops()
                engine, self._unadopted = self._unadopted or self._create(), None
                self._engines[loop] = engine
            self._latest = (loop, engine)
            return engine

    def existing(self) -> AsyncEngine | None:
        """Return what `current()` would, without making an engine."""
        with self._lock:
            loop = running_loop()
            if loop is not None and loop in self._engines:
                return self._engines[loop]
            return self._unadopted or (
                next(iter(self._engines.values()), None) if loop is None else None
            )

    def all(self) -> tuple[AsyncEngine, ...]:
        """Return the engines of all open loops."""
        with self._lock:
            self._drop_closed_loops()
            unadopted = (self._unadopted,) if self._unadopted else ()
            return (*self._engines.values(), *unadopted)

    def with_loops(self) -> list[tuple[_Loop, AsyncEngine]]:
        """Return the engines of all open loops, each with its loop."""
        with self._lock:
            self._drop_closed_loops()
            return [*self._engines.items()]

    def take(self, loop: _Loop) -> AsyncEngine | None:
        """Remove the engine of one loop, for the caller to dispose of."""
        with self._lock:
            if self._latest is not None and self._latest[0] is loop:
                self._latest = None
            return self._engines.pop(loop, None)

    def take_all(self) -> Iterator[tuple[_Loop | None, AsyncEngine]]:
        """Remove every engine, with its loop, for the caller to dispose of."""
        with self._lock:
            self._drop_closed_loops()
            taken: list[tuple[_Loop | None, AsyncEngine]] = [*self._engines.items()]
            if self._unadopted is not None:
                taken.append((None, self._unadopted))
            self._engines.clear()
            self._unadopted = self._latest = None
        return iter(taken)

    def _drop_closed_loops(self) -> None:
        for loop in [loop for loop in self._engines if loop.is_closed()]:
            pool = elastic_pool(self._engines.pop(loop))
            if pool is not None:
                pool.abandon()
            self._latest = None

    def forget_parent(self) -> None:
        """Begin anew in a forked child."""
        self._lock = threading.RLock()
        self._inherited.append((self._engines, self._unadopted, self._latest))
        self._engines, self._unadopted, self._latest = {}, None, None


class StartedLoops:
    """The loops that a database was started in, and not stopped yet.

    An application that two threads serve, each with a loop, is started and stopped twice: the first
    start and the last stop are the database's, the others are of the one loop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: set[_Loop] = set()
        self._inner: Counter[_Loop] = Counter()
        self._starting: dict[_Loop, asyncio.Lock] = {}
        on_fork(self)

    def forget_parent(self) -> None:
        """Begin anew in a forked child, which runs none of its parent's loops."""
        self._lock = threading.Lock()
        self._loops, self._inner, self._starting = set(), Counter(), {}

    def one_at_a_time(self, loop: _Loop) -> asyncio.Lock:
        """Return what a start in a loop holds: whoever comes meanwhile waits, then looks anew."""
        with self._lock:
            self._forget_closed()
            return self._starting.setdefault(loop, asyncio.Lock())

    def enter(self, loop: _Loop) -> bool:
        """Note the start in a loop, and return whether it is the only one."""
        with self._lock:
            self._forget_closed()
            self._loops.add(loop)
            return self._loops == {loop}

    def enter_inner(self, loop: _Loop) -> bool:
        """Note a block in a loop that is started already; False when it is not."""
        with self._lock:
            if loop in self._loops:
                self._inner[loop] += 1
                return True
            return False

    def leave_inner(self, loop: _Loop) -> bool:
        """Note the end of a block, and return whether another start of the loop goes on."""
        with self._lock:
            if self._inner[loop]:
                self._inner[loop] -= 1
                return True
            return False

    def only(self, loop: _Loop) -> bool:
        """Whether a stop in this loop is that of the whole database.

        So it is too when a loop says so that never started it.
        """
        with self._lock:
            self._forget_closed()
            return loop not in self._loops or self._loops == {loop}

    def leave(self, loop: _Loop) -> bool:
        """Note the stop in a loop, and return whether it is that of the whole database."""
        with self._lock:
            self._forget_closed()
            if loop not in self._loops:
                self._loops.clear()
            self._loops.discard(loop)
            del self._inner[loop]
            return not self._loops

    def _forget_closed(self) -> None:
        self._loops = {loop for loop in self._loops if not loop.is_closed()}
        self._inner = Counter({loop: self._inner[loop] for loop in self._loops})
        self._starting = {
            loop: lock for loop, lock in self._starting.items() if not loop.is_closed()
        }
