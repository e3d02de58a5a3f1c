"""What happens outside of every test's sandbox: it is refused, or what it stores is noticed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy import Connection, Engine, event

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.testing.commands import is_control, is_reading
from reviewpoint_db.testing.errors import DatabaseNotRequestedError
from reviewpoint_db.testing.redirect import Target

__all__ = ["Refusal", "Stored", "by_a_fixture", "by_a_test"]

#: What to do instead of storing rows in a fixture that lives longer than a test.
_INSTEAD: Final = (
    "Rows that all tests need come from `db_seed`; a test's own from setUp or from a "
    "function-scoped fixture that requests `db_session`, and are undone. If it is to store rows for "
    "good and to remove them itself, let it be a fixture that requests `db_url`."
)


def by_a_test() -> str:
    """Say that the current test did not ask."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "Something").rpartition(" (")
    return (
        f"{test[0] or test[2]} touched the database without asking for it. Give it the fixture "
        "db_session (its changes are undone), db_clone (a database of its own), or the marker "
        "@pytest.mark.db."
    )


def by_a_fixture(what: str) -> str:
    """Say that a fixture which lives longer than a test did not ask."""
    return (
        f"{what} touched the database outside of every test's sandbox, where what it stores stays "
        f"for the tests that follow. {_INSTEAD}"
    )


class Refusal(Target):
    """Where no connection is made.

    Args:
        say: Says who was refused what.
    """

    def __init__(self, say: Callable[[], str]) -> None:
        async def refuse(*_: object, **__: object) -> Any:
            raise DatabaseNotRequestedError(say())

        super().__init__(None, refuse)


class Stored:
    """Whether something was stored in a database for good, in a block.

    Args:
        url: The database; None for none, where nothing is noticed.
    """

    def __init__(self, url: str | None) -> None:
        self._database = None if url is None else DatabaseConfig(url=url).sqlalchemy_url.database
        self._writing: set[Connection] = set()
        self._stored = False

    def __bool__(self) -> bool:
        return self._stored

    def by(self, what: str) -> str:
        """Say who stored something."""
        return (
            f"{what} stored something outside of every test's sandbox: it stays for the tests that "
            f"follow. {_INSTEAD}"
        )

    @contextlib.contextmanager
    def noticed(self) -> Iterator[None]:
        """Notice what all engines of the process do in a block."""
        if self._database is None:
            yield
            return
        listeners: dict[str, Callable[..., None]] = {
            "before_cursor_execute": self._execute,
            "commit": self._commit,
            "rollback": self._rollback,
        }
        for name, listener in listeners.items():
            event.listen(Engine, name, listener)
        try:
            yield
        finally:
            for name, listener in listeners.items():
                event.remove(Engine, name, listener)

    def _execute(self, connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if not (
            statement.startswith("BEGIN")
            or is_control(statement)
            or is_reading(statement)
            or connection.engine.url.database != self._database
        ):
            self._writing.add(connection)

    def _commit(self, connection: Connection) -> None:
        self._stored = self._stored or connection in self._writing

    def _rollback(self, connection: Connection) -> None:
        self._writing.discard(connection)
