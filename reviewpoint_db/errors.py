"""The errors of this package, one tree.

Every error derives from the matching class of `sqlalchemy.exc` too, so that `except SQLAlchemyError`
catches all of them:

    ReviewPointDBError
    ├── ConfigurationError            sqlalchemy.exc.ArgumentError
    ├── UnavailableError              may pass: 503 with Retry-After
    │   ├── DatabaseUnavailableError  sqlalchemy.exc.OperationalError
    │   ├── PoolTimeoutError          sqlalchemy.exc.TimeoutError
    │   └── QueryTimeoutError         sqlalchemy.exc.OperationalError
    ├── CommitOutcomeUnknownError     sqlalchemy.exc.OperationalError
    ├── SessionClosedError            sqlalchemy.exc.InvalidRequestError
    └── ReadOnlySessionError          sqlalchemy.exc.InvalidRequestError

Each is made of one message, which is all that `str()` shows.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import exc

__all__ = [
    "CommitOutcomeUnknownError",
    "ConfigurationError",
    "DatabaseUnavailableError",
    "PoolTimeoutError",
    "QueryTimeoutError",
    "ReadOnlySessionError",
    "ReviewPointDBError",
    "SessionClosedError",
    "UnavailableError",
]


class ReviewPointDBError(Exception):
    """The base class of all errors that this package raises by itself."""

    def __str__(self) -> str:
        # SQLAlchemy would append a link to its own error page; our messages say what to do.
        return str(self.args[0]) if self.args else ""


class UnavailableError(ReviewPointDBError):
    """The database cannot serve this request now; a later one may succeed (HTTP 503)."""


class _DriverError(exc.OperationalError):
    """An OperationalError of one message, without the statement and parameters of SQLAlchemy's."""

    def __init__(self, message: str, *, orig: BaseException | None = None) -> None:
        # DBAPIError.__init__ would compose the text from the driver's own, which may hold values.
        exc.StatementError.__init__(self, message, None, None, orig, hide_parameters=True)
        self.connection_invalidated = False

    def __reduce__(self) -> tuple[Any, ...]:
        # The driver's exception stays in its process: it need not be picklable.
        return type(self), (self.args[0],)


class ConfigurationError(ReviewPointDBError, exc.ArgumentError):
    """A setting is wrong; the message names the field, its value (redacted) and the fix."""


class DatabaseUnavailableError(UnavailableError, _DriverError):
    """The database refused the connection, is starting or stopping, or the connection was lost.

    Args:
        message: Host, how long it was tried, and the way out.
        orig: The driver's exception.
    """


class PoolTimeoutError(UnavailableError, exc.TimeoutError):
    """No connection became free within `pool.timeout`; the message says who holds them."""


class QueryTimeoutError(UnavailableError, _DriverError):
    """A statement ran longer than `query_timeout`; its connection was cut, or SQLite's interrupted.

    Args:
        message: The time limit and the way out.
        orig: The driver's exception.
    """


class CommitOutcomeUnknownError(ReviewPointDBError, _DriverError):
    """The connection was lost during COMMIT: the data may have been stored, or not.

    Never retried by this package, and answered with 500 without Retry-After.

    Args:
        message: What happened and how to find out.
        orig: The driver's exception.
    """


class SessionClosedError(ReviewPointDBError, exc.InvalidRequestError):
    """A session was used after the request or block that owned it was over."""


class ReadOnlySessionError(ReviewPointDBError, exc.InvalidRequestError):
    """A read session was asked to write, or to do what only a transaction can."""
