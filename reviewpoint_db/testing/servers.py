"""Where a run's databases are made, copied and dropped: on a PostgreSQL server, or in files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg
from sqlalchemy import URL

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.testing.errors import TestingConfigurationError
from reviewpoint_db.testing.thread import LoopThread

__all__ = ["Files", "Home", "Server"]

#: Where the URL comes from.
_CORRECT: Final = "correct --db-url, REVIEWPOINT_DB_URL or DATABASE_URL"
#: PostgreSQL's names have 63 bytes; a worker's and a clone's number come behind.
_LONGEST_NAME: Final = 40


class Home(Protocol):
    """A place for databases; all its methods block."""

    def url(self, name: str) -> str:
        """Return the URL of a database."""

    def names(self) -> list[str]:
        """Return the databases that are there, those of others among them."""

    def mark(self, name: str, text: str) -> None:
        """Note a word of letters, digits, `-` and `_` on a database; copies do not have it."""

    def mark_of(self, name: str) -> str | None:
        """Return what was noted on a database; None where nothing was, or it is not there."""

    def create(self, name: str, template: str | None = None) -> str:
        """Make a database, empty or as a copy, and return its URL."""

    def leave(self, name: str) -> None:
        """Have nobody be connected to a database, which is to be copied."""

    def drop(self, name: str) -> None:
        """Remove a database, also when it is in use or was never made."""

    def close(self) -> None:
        """Let go of the place."""


class Server:
    """Databases on a PostgreSQL server.

    Args:
        url: A database on it, whose user may create others.
        owner: The loop that talks to the server.
    """

    def __init__(self, url: str, owner: LoopThread) -> None:
        self._config = DatabaseConfig(url=url, environment="test")
        self._owner = owner
        self._connection: Any = None

    @staticmethod
    def base_name(url: URL) -> str:
        """Return what the names of a run's databases begin with."""
        return f"test_{url.database or 'app'}"[:_LONGEST_NAME]

    def _url(self, name: str) -> URL:
        # As it was given: libpq's parameters are left in it.
        given = self._config.url
        assert given is not None
        from sqlalchemy import make_url

        return make_url(given).set(database=name)

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        return self._url(name).render_as_string(hide_password=False)

    def names(self) -> list[str]:
        """Return the databases that are there, those of others among them."""
        return [row["datname"] for row in self._execute("fetch", "SELECT datname FROM pg_database")]

    def mark(self, name: str, text: str) -> None:
        """Note a word of letters, digits, `-` and `_` on a database; copies do not have it."""
        self._execute("execute", f"COMMENT ON DATABASE {_quoted(name)} IS '{text}'")

    def mark_of(self, name: str) -> str | None:
        """Return what was noted on a database; None where nothing was, or it is not there."""
        query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1"
        mark: str | None = self._execute("fetchval", query, name)
        return mark

    def create(self, name: str, template: str | None = None) -> str:
        """Make a database, empty or as a copy, and return its URL."""
        self._execute(
            "execute",
            f"CREATE DATABASE {_quoted(name)} TEMPLATE {_quoted(template or 'template1')}",
        )
        return self.url(name)

    def leave(self, name: str) -> None:
        """End the sessions in a database: nobody may be connected to what is copied."""
        self._execute(
            "execute",
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1",
            name,
        )

    def drop(self, name: str) -> None:
        """Remove a database, also when it is in use or was never made."""
        self._execute("execute", f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def _execute(self, method: str, *arguments: str) -> Any:
        return self._owner.run(self._send(method, *arguments))

    async def _send(self, method: str, *arguments: str) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self.connect()
        try:
            return await getattr(self._connection, method)(*arguments)
        except asyncpg.InsufficientPrivilegeError as error:
            raise TestingConfigurationError(
                f"The user of {self._config.safe_url} may not create and drop databases ({error}), "
                "which each run of the tests does: ALTER ROLE ... CREATEDB, or name another user by "
                "--db-url."
            ) from error

    def close(self) -> None:
        """Close the connection to the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._owner.run(connection.close(timeout=5))

    async def connect(self, name: str | None = None) -> Any:
        """Open a connection to a database; None is the server's first.

        Raises:
            TestingConfigurationError: There is none; the message says what to do.
        """
        url = self._config.sqlalchemy_url
        known = {
            "host": url.host,
            "port": url.port,
            "user": url.username,
            "password": url.password,
            "database": name or url.database,
        }
        arguments = {key: value for key, value in known.items() if value is not None}
        try:
            return await asyncpg.connect(**{**arguments, **self._config.connect_args()})
        except (OSError, asyncpg.PostgresError) as error:
            raise TestingConfigurationError(self._refused(error)) from error

    def _refused(self, error: Exception) -> str:
        url = self._config.safe_url
        match error:
            case asyncpg.InvalidCatalogNameError():
                return (
                    f"The database of {url} does not exist, and the test databases are made from "
                    "within it: create it, or name one that exists by --db-url (postgres, say)."
                )
            case asyncpg.InvalidAuthorizationSpecificationError():
                return f"{url} does not let its user in ({error}): {_CORRECT}."
            case _:
                return (
                    f"{url} does not answer ({error}): start the server, or {_CORRECT}. Without any of "
                    "them, the tests have an embedded PostgreSQL."
                )


class Files:
    """Databases of SQLite, each a file of a folder.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.sqlite3"

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        return f"sqlite:///{self._path(name)}"

    def names(self) -> list[str]:
        """Return the databases that are there."""
        return [path.stem for path in self._folder.glob("*.sqlite3")]

    def mark(self, name: str, text: str) -> None:
        """Note a word on a database; copies do not have it."""
        self._mark(name).write_text(text)

    def mark_of(self, name: str) -> str | None:
        """Return what was noted on a database; None where nothing was, or it is not there."""
        mark = self._mark(name)
        return mark.read_text() if mark.exists() else None

    def _mark(self, name: str) -> Path:
        return self._folder / f"{name}.mark"

    def create(self, name: str, template: str | None = None) -> str:
        """Make a database, empty or as a copy, and return its URL."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if template is None:
            self._path(name).touch()
        else:
            shutil.copyfile(self._path(template), self._path(name))
        return self.url(name)

    def leave(self, name: str) -> None:
        """Nothing: a file may be copied when its writers have closed it."""

    def close(self) -> None:
        """Nothing is open."""

    def drop(self, name: str) -> None:
        """Remove a database, also when it is in use or was never made."""
        for ending in ("", "-wal", "-shm", "-journal"):
            Path(f"{self._path(name)}{ending}").unlink(missing_ok=True)
        self._mark(name).unlink(missing_ok=True)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
