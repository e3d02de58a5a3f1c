"""From an error of the database to its code, its HTTP answer, and whether a retry helps.

Errors are told apart by SQLSTATE, and on SQLite by the name of the result code, never by the text of
the message, which depends on the server's language. https://www.postgresql.org/docs/current/errcodes-appendix.html
https://sqlite.org/rescode.html
"""

from __future__ import annotations

import math
import socket
import sqlite3
import ssl
from dataclasses import dataclass
from typing import Final

from sqlalchemy import exc

from reviewpoint_db.driver_errors import code_of, is_of_asyncpg, wrapped
from reviewpoint_db.errors import (
    CommitOutcomeUnknownError,
    DatabaseUnavailableError,
    ReviewPointDBError,
    UnavailableError,
)
from reviewpoint_db.tls_errors import connect_fix, is_tls_refused

__all__ = [
    "READ_ONLY_TRANSACTION",
    "SERVER_ENDED",
    "ErrorAnswer",
    "answer_for",
    "connect_hint",
    "hint_for",
    "is_disconnect",
    "is_of_database",
    "is_refused_login",
    "is_serialization_failure",
    "is_transient_connect",
    "is_unreachable",
    "level_for",
    "log_hint",
    "retry_after_header",
]

_SERIALIZATION = frozenset({"40001", "40P01", "SQLITE_BUSY_SNAPSHOT"})

# Ended by an administrator, a crash, or a time limit of the server on idle sessions; starting up.
_TERMINATED = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"})

#: A write in a read-only transaction: the server may have become a replica.
READ_ONLY_TRANSACTION: Final = "25006"
#: An administrator or a crash ended the connection, and most likely the others as well.
SERVER_ENDED: Final = frozenset({"57P01", "57P02"})

_LATER = frozenset(
    {
        READ_ONLY_TRANSACTION,
        "53300",  # too many clients
        "55P03",  # lock not available
        "57014",  # canceled by a time limit of the server
    }
)

_UNAVAILABLE = "The database is unavailable. Please try again."
_CONFLICT = "The change conflicts with existing data."
_COLLISION = "The change collided with another one. Please try again."
_FAILED = "The request failed."
_UNKNOWN = "The change may have been stored. Please check before you try again."
_NOT_FOUND = "Not found."

_MIGRATE = (
    "has the schema been created? Run `litestar database upgrade` or `reviewpoint-db upgrade`"
)
_HINTS = {
    "42P01": _MIGRATE,
    "42703": _MIGRATE,
    "3F000": _MIGRATE,
    "3D000": "the database does not exist; create it with `createdb`, or check the URL's path",
    "28P01": "the server refused the password; check user and password of the URL",
    "28000": "the server refused the user; check the URL and the server's pg_hba.conf",
    "53300": "the server has no connection left; lower pool.size and pool.max_overflow, or raise max_connections",
    "25006": "the server is read-only; does the URL point to a replica?",
    "SQLITE_CANTOPEN": "the folder of the database file must exist and be writable",
}
_NOBODY: Final = "start the database, or correct host and port of the URL"
_NETWORK_HINTS: Final = (
    (socket.gaierror, "no host has this name; correct the host of the URL"),
    (FileNotFoundError, "there is no such socket; start the database, or correct the host"),
    (TimeoutError, "nothing answers there; check host, port and the firewalls in between"),
)


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What an error becomes over HTTP.

    Attributes:
        status: The HTTP status.
        code: SQLSTATE or SQLite's name of the error, for logs and metrics.
        detail: A text for the client, without anything of the driver's.
        retry_after: Seconds for the Retry-After header of a 503, else None.

    Example:
        >>> answer_for(TimeoutError(), retry_after=2.0)
        ErrorAnswer(status=503, code=None, detail='The database is unavailable. Please try again.', retry_after=2.0)
    """

    status: int
    code: str | None
    detail: str
    retry_after: float | None


def retry_after_header(seconds: float) -> str:
    """`Retry-After` knows whole seconds only; 0 would mean at once, and less than was asked is too soon."""
    return str(max(1, math.ceil(seconds)))


def is_serialization_failure(error: BaseException) -> bool:
    """Whether the transaction would succeed when it is run again from its beginning."""
    return code_of(error) in _SERIALIZATION


def is_disconnect(error: BaseException) -> bool:
    """Whether the connection is lost, was terminated, or was never made."""
    code = code_of(error)
    if code is not None:
        return code in _TERMINATED or code.startswith(("08", "57P0"))
    return any(
        # TimeoutError, the driver's for a silent server, is an OSError too.
        isinstance(current, OSError)
        or (isinstance(current, exc.DBAPIError) and current.connection_invalidated)
        or _is_out_of_step(current)
        for current in wrapped(error)
    )


def _is_out_of_step(error: BaseException) -> bool:
    # asyncpg's, when the server's farewell has been read and the end of the connection has not.
    return is_of_asyncpg(error) and type(error).__name__ == "InternalClientError"


def is_refused_login(error: BaseException) -> bool:
    """Whether the server lets nobody in with these credentials, or has no such database."""
    code = code_of(error)
    return code is not None and code.startswith(("28", "3D"))


def is_unreachable(error: BaseException) -> bool:
    """Whether SQLAlchemy or this package says by it that the database lets nobody in.

    Anybody's own OSError, of a missing file say, is none of these.
    """
    if isinstance(error, ReviewPointDBError):
        return isinstance(error, DatabaseUnavailableError)
    closed = code_of(error) in {"28P01", "28000", "3D000", "53300", "SQLITE_CANTOPEN"}
    return isinstance(error, exc.SQLAlchemyError) and (closed or is_disconnect(error))


def is_transient_connect(error: BaseException) -> bool:
    """Whether an attempt to connect may succeed a moment later."""
    code = code_of(error)
    if code is not None:
        return code in {"57P01", "57P02", "57P03", "53300"} or code.startswith("08")
    return any(
        _is_without_primary(current) or (isinstance(current, OSError) and not _will_stay(current))
        for current in wrapped(error)
    )


def _will_stay(error: OSError) -> bool:
    """Whether an error of the operating system or of TLS is one of configuration."""
    if isinstance(error, ssl.SSLError):
        # The server went away in the middle of the handshake.
        return not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError))
    return isinstance(error, PermissionError) or is_tls_refused(error)


def _is_without_primary(error: BaseException) -> bool:
    # asyncpg's, when no host has the wanted target_session_attrs: a failover is under way.
    return type(error).__name__ == "TargetServerAttributeNotMatched"


def answer_for(error: BaseException, *, retry_after: float = 1.0) -> ErrorAnswer:
    """The HTTP answer for an error of the database, of SQLAlchemy or of a repository.

    Args:
        error: What was raised.
        retry_after: Seconds after which the client may try again.
    """
    code = code_of(error)
    if isinstance(error, CommitOutcomeUnknownError):
        return ErrorAnswer(500, code, _UNKNOWN, None)
    if isinstance(error, ReviewPointDBError) and not isinstance(error, UnavailableError):
        return ErrorAnswer(500, code, _FAILED, None)
    if _is_conflict(error, code):
        return ErrorAnswer(409, code, _CONFLICT, None)
    if code in _SERIALIZATION:
        return ErrorAnswer(503, code, _COLLISION, retry_after)
    if _is_unavailable(error, code):
        return ErrorAnswer(503, code, _UNAVAILABLE, retry_after)
    if _repository_error(error) == "NotFoundError":
        return ErrorAnswer(404, code, _NOT_FOUND, None)
    return ErrorAnswer(500, code, _FAILED, None)


def _is_conflict(error: BaseException, code: str | None) -> bool:
    if code is not None:
        return code.startswith(("23", "SQLITE_CONSTRAINT"))
    if any(isinstance(current, exc.IntegrityError) for current in wrapped(error)):
        return True
    # A repository wraps other errors of the driver in its IntegrityError too: its cause decides.
    return error.__cause__ is None and _repository_error(error) in {
        "IntegrityError",
        "DuplicateKeyError",
        "ForeignKeyError",
    }


def _is_unavailable(error: BaseException, code: str | None) -> bool:
    if is_disconnect(error) or code in _LATER or _is_stale_plan(error):
        return True
    if code is not None and code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return True
    return any(
        isinstance(current, (UnavailableError, exc.TimeoutError)) for current in wrapped(error)
    )


def _is_stale_plan(error: BaseException) -> bool:
    # asyncpg's, of a statement that was prepared before a migration; the next one is prepared anew.
    return any(type(each).__name__ == "InvalidCachedStatementError" for each in wrapped(error))


def is_of_database(error: BaseException) -> bool:
    """Whether it is an error of SQLAlchemy's, of this package or of a repository."""
    return isinstance(error, exc.SQLAlchemyError) or _repository_error(error) is not None


def _repository_error(error: BaseException) -> str | None:
    """The name of advanced-alchemy's error class, which the core does not import."""
    for base in type(error).__mro__:
        if base.__module__ == "advanced_alchemy.exceptions":
            return base.__name__
    return None


def log_hint(error: BaseException) -> str | None:
    """What an operator can do about an error, for its log line."""
    code = code_of(error)
    if code == "SQLITE_ERROR":
        # SQLite has one code for all mistakes in a statement: only its text, which it never
        # translates, names a missing table.
        missing = any(
            isinstance(current, sqlite3.Error)
            and str(current).startswith(("no such table", "no such column"))
            for current in wrapped(error)
        )
        return _MIGRATE if missing else None
    return None if code is None else hint_for(code)


def hint_for(code: str) -> str | None:
    """What an operator can do about errors with this code."""
    return _HINTS.get(code)


def level_for(status: int) -> str:
    """The level at which an error is logged that was answered so: a client's mistake is none of ours."""
    return {500: "ERROR", 503: "WARNING"}.get(status, "INFO")


def connect_hint(error: BaseException) -> str:
    """What an operator can do about a database that cannot be reached.

    Example:
        >>> connect_hint(ConnectionRefusedError())
        'start the database, or correct host and port of the URL'
    """
    hint = log_hint(error)
    if hint is not None:
        return hint
    for current in wrapped(error):
        if isinstance(current, ssl.SSLError) or is_tls_refused(current):
            return connect_fix(current)
        if isinstance(current, OSError):
            hints = [hint for kind, hint in _NETWORK_HINTS if isinstance(current, kind)]
            return hints[0] if hints else _NOBODY
    return "start the database, or correct host, port, user and password of the URL"
