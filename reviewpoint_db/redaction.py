"""The one place that makes a URL or an exception safe to show.

An exception of a driver carries bound values in its message (`invalid input for query argument $1:
'secret'`), in its detail (`Key (email)=(secret) already exists.`), in the exception that caused it and
in SQLAlchemy's `[parameters: ...]`. The message is kept where the server puts only identifiers into
it; elsewhere it is written anew from the structured fields.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import URL

from reviewpoint_db.driver_errors import code_of, is_adapted, is_of_asyncpg, is_of_driver
from reviewpoint_db.errors import ReviewPointDBError
from reviewpoint_db.urls import MASK, split_url

__all__ = ["safe_error", "safe_url", "scrub"]

WITHHELD = "its text is withheld, since it may hold values"

# Classes of SQLSTATE whose messages name sessions, users, limits and what the driver made.
_PLAIN_CLASSES = frozenset({"08", "25", "26", "28", "34", "3D", "40", "53", "54", "57"})
# Those whose messages name identifiers, and so a value that was taken for one: `current_setting($1)`,
# `$1::regclass`, SQL that a function puts together.
_NAMING_CLASSES = frozenset({"0A", "3B", "3F", "42", "55"})
# A name, or several with the server's words between; other languages have other quotation marks.
_WHERE_NAMES_ARE = (re.compile(r'(?s)["»«„“”].*["»«„“”]'), re.compile(r"(?s): .*"))
# What stands between, and the types of `operator does not exist: integer = text`.
_BETWEEN = (
    "already and but column constraint expression for function in index is not of on relation schema "
    "table the to type view array bigint boolean bytea character date double integer interval json "
    "jsonb numeric precision real record smallint text time timestamp unknown uuid varying with "
    "without zone"
)
_BETWEEN_NAMES = frozenset(_BETWEEN.split())

# The words of the server for the integrity violations; the repositories of advanced-alchemy tell
# them apart by these words, and by the line that follows in the driver's own text.
_CONSTRAINTS = {
    "23502": 'null value in column "{column_name}" of relation "{table_name}" violates not-null constraint',
    "23503": 'a change on table "{table_name}" violates foreign key constraint "{constraint_name}"',
    "23505": 'duplicate key value violates unique constraint "{constraint_name}"',
    "23514": 'new row for relation "{table_name}" violates check constraint "{constraint_name}"',
    "23P01": 'conflicting key value violates exclusion constraint "{constraint_name}"',
}
_CONSTRAINT_DETAILS = {
    "23503": f'\nDETAIL:  Key ({MASK})=({MASK}) is not present in table "{MASK}".',
    "23505": f"\nKey ({MASK}) already exists.",
}
# An object's identity is its class and the values of its primary key.
_VALUES_FOLLOW = re.compile(r"\bkey (?=\()|\bliteral value ")
_NAMES = ("schema_name", "table_name", "column_name", "data_type_name", "constraint_name")
_TALKATIVE = ("detail", "hint", "context", "internal_query", "query")
#: What exceptions of the standard library keep of the value that they complain of.
_OBJECTS = ("obj", "doc")

# What SQLite says by itself; every other word of a message must stand in the statement.
_VOCABULARY = (
    "a active already ambiguous an and another are argument arguments as at attempt "
    "attached be busy by cannot change clause column columns commit constraint corrupt "
    "count database datatype disk does duplicate error escape exists expression failed few "
    "file for foreign full function has have image in incomplete index input integer into "
    "is key large literal locked logic malformed many matching mismatch misuse module must "
    "name near no not of on one only open or overflow permission read readonly required "
    "result row rollback same savepoint schema should specified start statement statements "
    "string such supplied syntax table tables temp than that the there to token too "
    "transaction trigger unable unique unrecognized unsupported used value values variables "
    "variable view was were while with within wrong write "
)
_SQLITE_WORDS = frozenset(_VOCABULARY.split())


class _Safe(str):
    """A text that was made safe: what it was measured by is gone by now."""

    __slots__ = ()


def safe_url(url: str | URL) -> str:
    """The URL without its secrets.

    Args:
        url: Any text; one that cannot be read as a URL without doubt is masked as a whole.

    Example:
        >>> safe_url("postgresql://ann:p@ss@db/papers?sslpassword=x")
        'postgresql://ann:***@db/papers?sslpassword=***'
    """
    text = url.render_as_string(hide_password=False) if isinstance(url, URL) else url
    parts = split_url(text)
    if parts is not None:
        return str(parts)
    scheme, separator, _ = text.partition("://")
    known = separator and scheme.isascii() and scheme.replace("+", "").isalnum()
    return f"{scheme}://{MASK}" if known else MASK


def safe_error(error: BaseException) -> str:
    """Class, code and safe text of an error in one line.

    Example:
        >>> safe_error(ValueError("secret"))
        'ValueError: its text is withheld, since it may hold values'
    """
    code = code_of(error)
    named = type(error).__name__ + (f" [{code}]" if code else "")
    return " ".join(f"{named}: {_safe_text(error)}".split())


def scrub(error: BaseException) -> None:
    """Remove values and the driver's details from an exception of a driver or of SQLAlchemy.

    The exception is changed in place, with all that it wraps: class, `sqlstate`, `constraint_name`
    and the other names stay, so that applications can go on telling errors apart. An exception that
    is neither the driver's nor SQLAlchemy's is changed when it came out of running a statement.

    Args:
        error: SQLAlchemy's exception; the driver's when SQLAlchemy made none.
    """
    if isinstance(error, (ValueError, TypeError, LookupError, ArithmeticError)):
        _withhold(error)
    done: set[int] = set()
    pending = [error]
    while pending:
        current = pending.pop()
        if id(current) in done:
            continue
        done.add(id(current))
        pending += _related(current)
        if isinstance(current, ReviewPointDBError):
            continue
        if isinstance(current, exc.StatementError):
            _scrub_wrapper(current)
            done.add(id(current.orig))
            pending += _related(current.orig) if current.orig is not None else ()
        elif is_of_driver(current):
            _scrub_driver(current, None)
        elif isinstance(current, exc.SQLAlchemyError) and current.args:
            current.args = (_without_values(str(current.args[0])), *current.args[1:])


def _related(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        yield from error.exceptions
    for related in (getattr(error, "orig", None), error.__cause__, error.__context__):
        if isinstance(related, BaseException):
            yield related


def _scrub_wrapper(error: exc.StatementError) -> None:
    orig = error.orig
    error.params = None
    error.hide_parameters = True
    if orig is None:
        return
    text = _safe_text(error)
    kind = f"({type(orig).__module__}.{type(orig).__name__})"
    error.args = (f"{kind} {text}",)
    if is_of_driver(orig):
        _scrub_driver(orig, error.statement)
    else:
        _withhold(orig)


def _scrub_driver(error: BaseException, statement: str | None) -> None:
    text = _driver_text(error, statement)
    details = _CONSTRAINT_DETAILS.get(code_of(error) or "", "") if is_adapted(error) else ""
    error.args = (_Safe(text + details),)
    if getattr(error, "message", None) is not None:
        error.message = text  # type: ignore[attr-defined]  # asyncpg's
    for name in _TALKATIVE:
        if getattr(error, name, None) is not None:
            setattr(error, name, None)
    if error.__cause__ is not None:
        # A codec's complaint about the value that it was given.
        _withhold(error.__cause__)


def _withhold(error: BaseException) -> None:
    """Empty an exception that is not the driver's, and those that led to it."""
    done: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in done or isinstance(current, OSError):
            continue
        done.add(id(current))
        pending += [current.__cause__, current.__context__]
        if not _is_known(current):
            _empty(current)


def _empty(error: BaseException) -> None:
    error.args = (WITHHELD,)
    if isinstance(error, UnicodeEncodeError):
        error.object = ""
    if isinstance(error, UnicodeDecodeError):
        error.object = b""
    for name in _OBJECTS:
        if getattr(error, name, None) is not None:
            setattr(error, name, None)
    if hasattr(error, "__notes__"):
        error.__notes__ = []


def _is_known(error: BaseException) -> bool:
    """Whether its text is made safe by other rules."""
    return isinstance(error, exc.SQLAlchemyError) or is_of_driver(error)


def _safe_text(error: BaseException) -> str:
    if isinstance(error, ReviewPointDBError):
        return str(error)
    if isinstance(error, exc.StatementError):
        return _statement_text(error)
    if is_of_driver(error):
        return _driver_text(error, None)
    if isinstance(error, exc.ArgumentError) and str(error).startswith("Textual "):
        return "SQL in a string must be declared as text(...), from sqlalchemy"
    if isinstance(error, exc.SQLAlchemyError) and not isinstance(
        # They repeat a URL, and the text of another exception.
        error,
        (exc.ArgumentError, exc.PendingRollbackError),
    ):
        return _without_values(str(error))
    if isinstance(error, OSError):
        return str(error) or "time limit exceeded"
    if isinstance(error.__cause__, exc.SQLAlchemyError):
        return safe_error(error.__cause__)
    return WITHHELD


def _without_values(text: str) -> str:
    """Cut a text of SQLAlchemy's own off where it comes to an object's identity or to a literal."""
    found = _VALUES_FOLLOW.search(text)
    return f"{text[: found.end()]}...; the rest of {WITHHELD}" if found else text


def _statement_text(error: exc.StatementError) -> str:
    orig = error.orig
    if orig is None:
        return str(error.args[0])
    if is_of_driver(orig):
        return _driver_text(orig, error.statement)
    # "A value is required for bind parameter": names only.
    if isinstance(orig, exc.SQLAlchemyError) and orig.code == "cd3x":
        return str(orig.args[0])
    return WITHHELD


def _driver_text(error: BaseException, statement: str | None) -> str:
    if isinstance(error, sqlite3.Error):
        return _sqlite_text(error, statement)
    if is_adapted(error):
        error = getattr(error, "orig", None) or error.__cause__ or error
    if not is_of_asyncpg(error):
        return WITHHELD
    if isinstance(getattr(error, "sqlstate", None), str):
        return _server_text(error, statement)
    return str(error.args[0]) if error.args else type(error).__name__


def _server_text(error: Any, statement: str | None) -> str:
    text = error.args[0]
    if isinstance(text, _Safe):
        return str(text)
    code: str = error.sqlstate
    names = {name: getattr(error, name) for name in _NAMES if getattr(error, name, None)}
    template = _CONSTRAINTS.get(code)
    if template is not None and all(name in names for name in re.findall(r"\{(\w+)\}", template)):
        return template.format(**names)
    # asyncpg's own complaint, made before the statement was sent.
    argument = re.match(r"invalid input for query argument \$\d+", str(text))
    if argument is not None:
        return f"{argument[0]}; {WITHHELD}"
    # PL/pgSQL's RAISE can send any text under any code.
    raised = getattr(error, "server_source_function", None) == "exec_stmt_raise"
    plain = code[:2] in _PLAIN_CLASSES or (
        code[:2] in _NAMING_CLASSES
        # In a function: its SQL may have been put together of values.
        and not (getattr(error, "context", None) or getattr(error, "internal_query", None))
        and _names_the_statements(text, statement or getattr(error, "query", None))
    )
    if plain and not raised:
        return str(text)
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    named = "".join(f", {name.removesuffix('_name')} {value}" for name, value in names.items())
    return f"{kind}{named}; {WITHHELD}"


def _names_the_statements(text: str, statement: str | None) -> bool:
    """Whether the names in a message of the server's are those of the statement."""
    found = [place.search(text) for place in _WHERE_NAMES_ARE]
    names = {name for one in found if one for name in _words(one[0])}
    return names <= _words(statement or "") | _BETWEEN_NAMES


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _sqlite_text(error: sqlite3.Error, statement: str | None) -> str:
    text = str(error)
    if error.args and isinstance(error.args[0], _Safe):
        return text
    code = code_of(error) or type(error).__name__
    if code.startswith("SQLITE_CONSTRAINT") and code not in {
        # A trigger's RAISE and an extension's function write their own text.
        "SQLITE_CONSTRAINT_TRIGGER",
        "SQLITE_CONSTRAINT_VTAB",
        "SQLITE_CONSTRAINT_FUNCTION",
    }:
        return text
    words = set(re.findall(r"\w+", text))
    unknown = {word for word in words if word.lower() not in _SQLITE_WORDS}
    if not unknown - set(re.findall(r"\w+", statement or "")):
        return text
    kept = re.match(r"no such \w+", text)
    return f"{kept[0] if kept else code}; {WITHHELD}"
