"""What looks like a connection of asyncpg and works in a sandbox."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, Final

import asyncpg

from reviewpoint_db.testing.channel import Channel

__all__ = ["PostgresErrors", "PostgresGround", "PostgresStandIn"]

#: The statement of a ping, which has nothing to find out here.
_PING: Final = "SELECT 1"
#: Rows that asyncpg fetches at a time.
_PREFETCH: Final = 50
#: Forgets what was prepared by PREPARE, and nothing of asyncpg's own.
_DEALLOCATE: Final = (
    "DO $$ DECLARE known text; BEGIN"
    " FOR known IN SELECT name FROM pg_prepared_statements WHERE from_sql"
    " LOOP EXECUTE format('DEALLOCATE %I', known); END LOOP; END $$"
)


def _aborted() -> Exception:
    error: Exception = asyncpg.InFailedSQLTransactionError(
        "current transaction is aborted, commands ignored until end of transaction block"
    )
    return error


class PostgresGround:
    """The sandbox's real connection to PostgreSQL."""

    failure = staticmethod(_aborted)

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        #: What stands for the codecs that stand-ins set on it.
        self.codecs: dict[tuple[str, str], dict[str, object]] = {}

    @property
    def open(self) -> bool:
        """Whether the outer transaction is open."""
        return bool(self.driver.is_in_transaction())

    @property
    def closed(self) -> bool:
        """Whether the connection is lost."""
        return bool(self.driver.is_closed())

    async def close(self) -> None:
        """Close the connection."""
        await self.driver.close(timeout=5)

    async def begin(self) -> None:
        """Open the outer transaction."""
        await self.driver.execute("BEGIN")

    async def undo(self) -> None:
        """Roll the outer transaction back, and what outlives it; one round trip."""
        await self.driver.execute(f"ROLLBACK; SELECT pg_advisory_unlock_all(); {_DEALLOCATE}")

    async def run(self, statement: str) -> None:
        """Execute statements without a result."""
        await self.driver.execute(statement)

    async def check_deferred(self) -> None:
        """Raise what a COMMIT would raise now; one round trip."""
        await self.driver.execute(
            "SAVEPOINT rpdb_check; SET CONSTRAINTS ALL IMMEDIATE; "
            "ROLLBACK TO SAVEPOINT rpdb_check; RELEASE SAVEPOINT rpdb_check"
        )


class PostgresErrors:
    """How asyncpg says what has happened."""

    def lost(self, why: str) -> Exception:
        """Make the error of a connection that is no more."""
        return ConnectionResetError(f"the connection was {why}")

    def conflict(self) -> Exception:
        """Make the error of a COMMIT that lost against another transaction."""
        error: Exception = asyncpg.SerializationError(
            "could not serialize access due to concurrent update (db_faults.fail_commit)"
        )
        return error


class _Remote:
    """An object of asyncpg whose coroutines run where the sandbox is."""

    def __init__(self, real: Any, channel: Channel, text: str) -> None:
        self._real = real
        self._channel = channel
        self._text = text

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            outcome = value(*args, **kwargs)
            return self._remote(name, args, outcome) if inspect.iscoroutine(outcome) else outcome

        return call

    async def _remote(
        self, name: str, args: tuple[Any, ...], work: Coroutine[Any, Any, Any]
    ) -> Any:
        text = self._text or (args[0] if args and isinstance(args[0], str) else name)
        try:
            return await self._channel.run(text, lambda: work)
        finally:
            work.close()  # it was never begun when the channel refused it


class _Rows:
    """What asyncpg's `cursor()` returns: to await for a cursor, or to iterate over.

    Args:
        prepare: Returns the prepared statement.
        args: Its parameters, `prefetch` and `timeout` among them.
    """

    def __init__(
        self, prepare: Callable[[], Awaitable[_Statement]], *args: Any, **options: Any
    ) -> None:
        self._prepare = prepare
        self._args = args
        self._prefetch = options.pop("prefetch", None) or _PREFETCH
        self._options = options

    def __await__(self) -> Generator[Any, Any, _Remote]:
        return self._open().__await__()

    async def _open(self) -> _Remote:
        statement = await self._prepare()
        return await statement.open_cursor(*self._args, **self._options)

    async def __aiter__(self) -> AsyncIterator[Any]:
        cursor = await self._open()
        while rows := await cursor.fetch(self._prefetch):
            for row in rows:
                yield row


class _Statement(_Remote):
    """A prepared statement."""

    def cursor(self, *args: Any, **options: Any) -> _Rows:
        """Open a cursor on the server."""

        async def prepared() -> _Statement:
            return self

        return _Rows(prepared, *args, **options)

    async def open_cursor(self, *args: Any, **options: Any) -> _Remote:
        """Open a cursor at once."""

        async def declare() -> Any:
            return await self._real.cursor(*args, **options)

        return _Remote(await self._channel.run(self._text, declare), self._channel, self._text)


class _Transaction:
    """A transaction, which is a savepoint of the sandbox; in another one, as asyncpg's, of that."""

    def __init__(self, stand_in: PostgresStandIn, channel: Channel, *, read_only: bool) -> None:
        self._stand_in = stand_in
        self._channel = channel
        self._read_only = read_only
        self._savepoint = ""

    async def __aenter__(self) -> None:
        await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await (self.commit() if kind is None else self.rollback())

    async def start(self) -> None:
        """Begin."""
        if self._channel.in_transaction:
            self._savepoint = f"nested_{id(self)}"
            await self._stand_in.execute(f"SAVEPOINT {self._savepoint}")
        else:
            await self._channel.begin(read_only=self._read_only)

    async def commit(self) -> None:
        """Commit."""
        if self._savepoint:
            await self._stand_in.execute(f"RELEASE SAVEPOINT {self._savepoint}")
        else:
            await self._channel.commit()

    async def rollback(self) -> None:
        """Roll back."""
        if self._savepoint:
            await self._stand_in.execute(f"ROLLBACK TO SAVEPOINT {self._savepoint}")
        else:
            await self._channel.rollback()


class PostgresStandIn(_Remote):
    """What SQLAlchemy takes for a connection of asyncpg.

    Args:
        ground: The sandbox's connection.
        channel: The way to it.
    """

    #: Where others look for a socket to cut: there is none of its own.
    _transport = _loop = None

    def __init__(self, ground: PostgresGround, channel: Channel) -> None:
        super().__init__(ground.driver, channel, "")
        self._codecs = ground.codecs

    def transaction(
        self,
        *,
        isolation: str | None = None,  # noqa: ARG002 - a sandbox has one level
        readonly: bool = False,
        deferrable: bool = False,  # noqa: ARG002 - of serializable transactions
    ) -> _Transaction:
        """Return a transaction to start."""
        return _Transaction(self, self._channel, read_only=readonly)

    async def prepare(self, query: str, **options: Any) -> _Statement:
        """Prepare a statement."""

        async def prepare() -> Any:
            return await self._real.prepare(query, **options)

        statement = await self._channel.run(query, prepare, prepares=True)
        return _Statement(statement, self._channel, query)

    def cursor(self, query: str, *args: Any, **options: Any) -> _Rows:
        """Prepare a statement and open a cursor on the server."""
        return _Rows(lambda: self.prepare(query), *args, **options)

    async def set_type_codec(self, typename: str, **options: Any) -> None:
        """Set a codec, unless the real connection has the same: asyncpg forgets all statements."""
        key = typename, str(options.get("schema", "public"))
        meaning = {name: _meaning(value) for name, value in options.items()}
        if self._codecs.get(key) == meaning:
            return

        async def set_codec() -> None:
            await self._real.set_type_codec(typename, **options)
            self._codecs[key] = meaning

        await self._channel.set_up(set_codec)

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """Execute statements."""
        if query == _PING:
            await self._channel.ping()
            return query

        async def execute() -> str:
            return str(await self._real.execute(query, *args, **options))

        return await self._channel.run(query, execute)

    def is_in_transaction(self) -> bool:
        """Whether a transaction of this stand-in is open."""
        return self._channel.in_transaction

    def is_closed(self) -> bool:
        """Whether it was closed or dropped."""
        return self._channel.closed

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ARG002 - asyncpg's name
        """Undo what is open; the real connection stays."""
        await asyncio.wrap_future(self._channel.drop())

    def terminate(self) -> None:
        """Undo what is open, without waiting for it."""
        self._channel.drop()


def _meaning(value: object) -> object:
    """Return what two functions have in common that do the same: SQLAlchemy makes them anew."""
    code = getattr(value, "__code__", None)
    cells = getattr(value, "__closure__", None) or ()
    return value if code is None else (code, *(cell.cell_contents for cell in cells))
