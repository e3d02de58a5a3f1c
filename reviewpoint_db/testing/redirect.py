"""Redirect: has every database of this process be the test's, and gives it back afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.engine import elastic_pool
from reviewpoint_db.testing.thread import LoopThread

__all__ = ["Redirect", "Target"]

Connect = Callable[..., Awaitable[Any]]
#: Options of an engine that say where it connects to, or belong to one driver.
_OF_THE_PLACE: Final = ("async_creator", "connect_args", "creator", "module")
#: Seconds for another loop's engine to be disposed of.
_DISPOSAL: Final = 5.0


class Target:
    """Where databases lead to, for the length of a test or of a run.

    Args:
        url: The database; None leaves everybody where they are.
        connect: Opens connections in the driver's place; None for real ones.
    """

    def __init__(self, url: str | None, connect: Connect | None = None) -> None:
        self.url = url
        self.connect = connect

    def applied_to(self, config: DatabaseConfig) -> DatabaseConfig:
        """Return the configuration of a database that leads here."""
        if self.url is None and self.connect is None:
            return config
        options = dict(config.engine_options)
        if self.url is not None:
            changed = DatabaseConfig(url=self.url).backend != config.backend
            options = {
                name: value
                for name, value in options.items()
                if name not in _OF_THE_PLACE or (name == "connect_args" and not changed)
            }
        if self.connect is not None:
            options["connect_args"] = {
                **options.get("connect_args", {}),
                "async_creator_fn": self.connect,
            }
        return msgspec.structs.replace(
            config,
            url=self.url or config.url,
            read_url=None,
            password=None if self.url else config.password,
            environment=config.environment or "test",
            engine_options=options,
        )


class Redirect:
    """The way in is `Database.prepare`: one object at a time, from `install()` to `remove()`.

    Args:
        owner: A loop in which engines may be disposed of.
        target: Where databases lead to outside of tests that say more.
    """

    def __init__(self, owner: LoopThread, target: Target) -> None:
        self._owner = owner
        self._targets = [target]
        self._originals: WeakKeyDictionary[Database, DatabaseConfig] = WeakKeyDictionary()
        self._spared: WeakSet[Database] = WeakSet()
        self._outer: Callable[[Database], None] | None = None

    @property
    def databases(self) -> tuple[Database, ...]:
        """The databases of this process."""
        return tuple(database for database in self._originals if database not in self._spared)

    @property
    def base(self) -> Target:
        """Where they lead to outside of tests that say more."""
        return self._targets[0]

    @property
    def target(self) -> Target:
        """Where they lead to now."""
        return self._targets[-1]

    def install(self) -> None:
        """Begin."""
        self._outer, Database.prepare = Database.prepare, self._prepare

    def remove(self) -> None:
        """End: every database is again what it was configured to be."""
        Database.prepare = self._outer
        del self._targets[1:]
        self._targets[0] = Target(None)
        self._lead()

    def set_base(self, target: Target) -> None:
        """Say where databases lead to outside of tests that say more."""
        self._targets[0] = target
        self._lead()

    @contextlib.contextmanager
    def to(self, target: Target) -> Iterator[None]:
        """Have all databases lead to a target for the length of a block."""
        self._targets.append(target)
        self._lead()
        try:
            yield
        finally:
            self._targets.remove(target)
            self._lead()

    @contextlib.contextmanager
    def to_base(self) -> Iterator[None]:
        """Have all databases lead where they do outside of tests, for the length of a block."""
        if self.target is self.base:
            yield
            return
        with self.to(Target(self.base.url, self.base.connect)):
            yield

    def spare(self, database: Database, config: DatabaseConfig) -> None:
        """Leave a database of the kit's own alone."""
        self._spared.add(database)
        database.config = config

    def _prepare(self, database: Database) -> None:
        if database in self._spared:
            return
        original = self._originals.setdefault(database, database.config)
        database.config = self.target.applied_to(original)

    def _lead(self) -> None:
        """Take the engines that lead elsewhere; the next use of a database makes new ones."""
        for database in self.databases:
            for loop, engine in database.take_engines():
                self._dispose(loop, engine)
            database.config = self.target.applied_to(self._originals[database])

    def _dispose(self, loop: asyncio.AbstractEventLoop | None, engine: AsyncEngine) -> None:
        pool = elastic_pool(engine)
        if loop is None or not loop.is_running():
            # Nothing runs there to say goodbye to a server; what is idle is cut.
            if pool is not None:
                pool.abandon()
            return
        if pool is not None:
            loop.call_soon_threadsafe(pool.terminate)
        disposal = asyncio.run_coroutine_threadsafe(engine.dispose(), loop)
        # In this thread's own loop it goes on after the fixture; there is nothing to wait for.
        if not _is_this_threads(loop):
            with contextlib.suppress(TimeoutError):
                disposal.result(_DISPOSAL)


def _is_this_threads(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
