"""The state behind default.py: which database is the process-wide one, and what was set from outside.

The original module kept plain globals. Here they follow the database that is current: that of the
running application, else the one that was built on first use. What a test sets on the names wins
over both until it is undone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary, ref

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.forks import on_fork

__all__ = ("STATE_NAMES", "ConfigSource", "DefaultState")

ConfigSource = DatabaseConfig | Callable[[], DatabaseConfig] | None

#: The original's state names: attributes of `DefaultState`, forwarded by modules.
STATE_NAMES: Final = (
    "AsyncSessionLocal",
    "_connection_failures",
    "_creation_lock",
    "_engine_creation_count",
    "_session_creation_count",
    "engine",
)
_DELETED: Final = object()


class _Live:
    """`engine` or `AsyncSessionLocal`: that of the current database, unless set from outside."""

    def __set_name__(self, _: type, name: str) -> None:
        self.name = name

    def __get__(self, state: DefaultState, _: type) -> Any:
        value = state.overrides.get(self.name, state)
        if value is _DELETED:
            raise AttributeError(self.name)
        return state.live(self.name) if value is state else value

    def __set__(self, state: DefaultState, value: Any) -> None:
        if state.recognize(value):
            state.overrides.pop(self.name, None)
        else:
            state.overrides[self.name] = value

    def __delete__(self, state: DefaultState) -> None:
        if state.overrides.get(self.name) is _DELETED:
            raise AttributeError(self.name)
        state.overrides[self.name] = _DELETED


class _Count:
    """A counter over all databases of the process, which counts on from what it is set to."""

    def __init__(self, field: str) -> None:
        self.field = field

    def __set_name__(self, _: type, name: str) -> None:
        self.name = name

    def __get__(self, state: DefaultState, _: type) -> int:
        base = state.counts.get(self.name, 0)
        if base is None:
            raise AttributeError(self.name)
        return base + self.counted(state)

    def __set__(self, state: DefaultState, value: int) -> None:
        state.counts[self.name] = value - self.counted(state)

    def __delete__(self, state: DefaultState) -> None:
        if state.counts.get(self.name, 0) is None:
            raise AttributeError(self.name)
        state.counts[self.name] = None

    def counted(self, state: DefaultState) -> int:
        """What the databases counted themselves since they were last taken into the base."""
        return sum(
            getattr(database.activity, self.field) - state.taken[database].get(self.field, 0)
            for database in state.known
        )

    def take(self, state: DefaultState, database: Database) -> None:
        """Take a database's count into the base, so that the database may go away."""
        taken = state.taken[database]
        counted = getattr(database.activity, self.field)
        base = state.counts.get(self.name, 0)
        if base is not None:
            state.counts[self.name] = base + counted - taken.get(self.field, 0)
        taken[self.field] = counted


_COUNTERS: Final = (
    _Count("engines_created"),
    _Count("sessions_created"),
    _Count("connection_failures"),
)


class DefaultState:
    """What the original kept in globals, and how it finds the current database."""

    engine = _Live()
    AsyncSessionLocal = _Live()
    _engine_creation_count, _session_creation_count, _connection_failures = _COUNTERS

    def __init__(self) -> None:
        self._creation_lock: Any = threading.Lock()
        self.source: ConfigSource = None
        self.overrides: dict[str, Any] = {}
        self.counts: dict[str, int | None] = {}
        #: Whose activity the counters add up: what was built here, and running applications.
        self.known: list[Database] = []
        #: How much of it is in `counts` already, from former runs of an application.
        self.taken: WeakKeyDictionary[Database, dict[str, int]] = WeakKeyDictionary()
        self._own: Database | None = None
        #: What each was built with; the testing kit gives a database another configuration.
        self._given: WeakKeyDictionary[Database, DatabaseConfig] = WeakKeyDictionary()
        self._built: list[Database] = []
        self._applications: list[Database] = []
        # Weak on both sides: a database holds its engine, so as a value it would never go.
        self._owners: WeakKeyDictionary[Any, ref[Database]] = WeakKeyDictionary()
        self._derived: tuple[Any, async_sessionmaker[AsyncSession]] | None = None
        on_fork(self)

    def forget_parent(self) -> None:
        """Begin in a forked child, where a thread of the parent's would never let go of the lock."""
        self._creation_lock = threading.Lock()

    @property
    def current(self) -> Database | None:
        """The running application's database, else the one built on first use, else None."""
        return self._applications[-1] if self._applications else self._own

    def live(self, name: str) -> Any:
        """Read `engine` or `AsyncSessionLocal` where nobody set them."""
        patched = self.overrides.get("engine", _DELETED)
        if name == "AsyncSessionLocal" and patched not in (None, _DELETED):
            # Sessions go where the engine was patched to, as whoever patches it means.
            if self._derived is None or self._derived[0] is not patched:
                self._derived = patched, async_sessionmaker(patched, expire_on_commit=False)
            return self._derived[1]
        database = self.current
        if database is None:
            return None
        value = database.engine if name == "engine" else database.sessionmaker
        self._owners[value] = ref(database)
        return value

    def recognize(self, value: Any) -> bool:
        """Whether a value that is set is what reading gave: then the name follows along again.

        A test that undoes its change sets the former value; after that, nothing may be left of it.
        """
        if value is None:
            return self.current is None
        if not self._ours(value):
            return False
        owner = self.owner_of(value)
        if owner in self._built:
            self._own = owner
        return True

    def owner_of(self, value: Any) -> Database | None:
        """Return the database whose engine or sessionmaker a value is, while it is alive."""
        return self._owners[value]() if self._ours(value) else None

    def _ours(self, value: Any) -> bool:
        return isinstance(value, AsyncEngine | async_sessionmaker) and value in self._owners

    def database_behind(self, name: str) -> Database | None:
        """Return the database behind a state name, or None when it was set from outside."""
        if self.overrides.get(name, _DELETED) not in (None, _DELETED):
            return None
        # Without a sessionmaker of its own, a patched engine has sessions derived from it.
        return self.current if self.overrides.get("engine", _DELETED) in (None, _DELETED) else None

    def patched(self) -> bool:
        """Whether `engine` or `AsyncSessionLocal` is something else than ours, set from outside."""
        return any(
            self.overrides.get(name, _DELETED) not in (None, _DELETED)
            for name in ("engine", "AsyncSessionLocal")
        )

    def count(self, name: str) -> None:
        """Add one to a counter, for what no database of ours counts by itself."""
        with self._creation_lock:
            setattr(self, name, getattr(self, name, 0) + 1)

    def initialized(self) -> bool:
        """Whether both `engine` and `AsyncSessionLocal` are there."""
        return (
            getattr(self, "engine", None) is not None
            and getattr(self, "AsyncSessionLocal", None) is not None
        )

    def configure(self, source: ConfigSource) -> None:
        """Have the next database built by a source.

        Raises:
            ConfigurationError: One that was built with other settings is in use.
        """
        own = self._own
        if own is not None and _config_of(source) != self._given[own]:
            msg = (
                "configure() comes too late: the process-wide database is in use already, with "
                f"{own.config.safe_url}. Call configure() before the first session, or "
                "`await reviewpoint_db.default.stop()` before configure()."
            )
            raise ConfigurationError(msg)
        self.source = source

    def build(self) -> Database:
        """Make a database by the configured source; the environment's where there is none."""
        config = _config_of(self.source)
        database = Database(config)
        self._given[database] = config
        for value in (database.engine, database.sessionmaker):
            self._owners[value] = ref(database)
        # Kept for good: a test that undoes its change sets the former engine, not its database.
        self._built.append(database)
        self._know(database)
        return database

    def _know(self, database: Database) -> None:
        self.taken.setdefault(database, {})
        if database not in self.known:
            self.known.append(database)

    def adopt(self, engine: Any, sessionmaker: Any) -> None:
        """Take what was built as the process-wide engine and sessionmaker, where there is none."""
        self._own = self.owner_of(engine) or self._own
        for name, value in (("engine", engine), ("AsyncSessionLocal", sessionmaker)):
            if self.overrides.get(name, _DELETED) in (None, _DELETED):
                self.overrides.pop(name, None)
                if self.owner_of(value) is None:
                    self.overrides[name] = value

    def follow_application(self) -> bool:
        """End an uninitialised state while an application runs; False when none does."""
        if not self._applications:
            return False
        for name in ("engine", "AsyncSessionLocal"):
            if self.overrides.get(name, _DELETED) in (None, _DELETED):
                self.overrides.pop(name, None)
        return True

    @contextmanager
    def used(self, database: Database) -> Iterator[None]:
        """Make an application's database the process-wide one.

        Raises:
            ConfigurationError: An application with another configuration runs already.
        """
        for other in self._applications:
            if other.config != database.config:
                msg = (
                    f"Two live databases have the name {database.name!r} and different "
                    f"configurations: {other.config.safe_url} and {database.config.safe_url}. "
                    "Give one of them another name: DatabaseConfig(name=...)."
                )
                raise ConfigurationError(msg)
        self._know(database)
        self._applications.append(database)
        self.follow_application()
        try:
            yield
        finally:
            self._applications.remove(database)
            if database not in self._applications and database not in self._built:
                for counter in _COUNTERS:
                    counter.take(self, database)
                self.known.remove(database)

    def forget_own(self) -> Database | None:
        """Give up the database that was built on first use, for the caller to stop."""
        own, self._own = self._own, None
        return own


def _config_of(source: ConfigSource) -> DatabaseConfig:
    config = source() if callable(source) else source
    return DatabaseConfig.from_env() if config is None else config
