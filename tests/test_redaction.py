"""Nothing that is shown has a secret: values of real statements on real drivers, and URLs."""

from __future__ import annotations

import enum
import json
import pickle
import sqlite3
import traceback
from typing import TYPE_CHECKING, Any

import advanced_alchemy.exceptions as alchemy
import asyncpg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import Enum, bindparam, event, exc, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.driver_errors import code_of, wrapped
from reviewpoint_db.errors import DatabaseUnavailableError
from reviewpoint_db.redaction import safe_error, safe_url, scrub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "s3cretvalue"

_SCHEMA = (
    "CREATE TABLE parents (id int PRIMARY KEY)",
    """CREATE TABLE papers (id int PRIMARY KEY, v varchar(50) NOT NULL CONSTRAINT uq_v UNIQUE,
    n int CONSTRAINT ck_n CHECK (n > 0), p int CONSTRAINT fk_p REFERENCES parents)""",
    "INSERT INTO parents VALUES (1)",
    f"INSERT INTO papers VALUES (1, '{SECRET}', 1, 1)",
)
_RAISE = (
    "CREATE FUNCTION say(message text, code text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN"
    " RAISE EXCEPTION USING message = message, detail = message, hint = message, errcode = code;"
    " END $$"
)
_ASK = (
    "CREATE FUNCTION ask_for(name text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN"
    " EXECUTE 'SELECT ' || name || ' FROM papers'; END $$"
)
_TRIGGER = (
    "CREATE TRIGGER say BEFORE UPDATE ON papers BEGIN SELECT RAISE(ABORT, 's3cretvalue'); END"
)


def engine_for(url: str) -> AsyncEngine:
    config = DatabaseConfig(url=url)
    engine = create_async_engine(config.sqlalchemy_url, connect_args=config.connect_args())

    @event.listens_for(engine.sync_engine, "handle_error")
    def _scrub(context: Any) -> None:
        scrub(context.sqlalchemy_exception or context.original_exception)

    return engine


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = engine_for(database_url)
    async with engine.begin() as connection:
        for statement in (*_SCHEMA, _RAISE if "postgresql" in database_url else _TRIGGER):
            await connection.exec_driver_sql(statement)
    yield engine
    await engine.dispose()


async def failure(engine: AsyncEngine, statement: Any, **values: object) -> Exception:
    if isinstance(statement, str):
        statement = text(statement)
    with pytest.raises(Exception) as caught:  # noqa: PT012 - any error is looked at
        async with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                await connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            await connection.execute(statement, values)
    return caught.value


def shown(error: BaseException) -> str:
    """All that a log could show of an error, its causes included."""
    everything = [*traceback.format_exception(error), safe_error(error)]
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is not None:
            everything += [str(current), repr(current)]
            names = {name for name in dir(current) if not name.startswith("__")} - {"statement"}
            everything += [repr(getattr(current, name, "")) for name in names]
            pending += [current.__cause__, current.__context__]
    return "\n".join(everything)


VIOLATIONS = {
    "INSERT INTO papers VALUES (2, :v, 1, 1)": ("23505", "UNIQUE"),
    "INSERT INTO papers VALUES (3, :v || '3', 1, 77)": ("23503", "FOREIGN KEY"),
    "DELETE FROM parents WHERE :v = :v": ("23503", "FOREIGN KEY"),
    "INSERT INTO papers VALUES (4, :v || '4', -5, 1)": ("23514", "CHECK"),
    "INSERT INTO papers VALUES (5, CASE WHEN :v = 'a' THEN 'b' END, 1, 1)": ("23502", "NOT NULL"),
}


@pytest.mark.parametrize("statement", VIOLATIONS)
async def test_a_violation_keeps_its_names_and_loses_its_values(
    engine: AsyncEngine, statement: str
) -> None:
    error = await failure(engine, statement, v=SECRET)
    assert isinstance(error, exc.IntegrityError)
    assert error.params is None
    assert SECRET not in shown(error)
    state, words = VIOLATIONS[statement]
    if engine.dialect.name == "sqlite":
        assert f"{words} constraint failed" in safe_error(error)
        return
    assert error.orig is not None
    assert error.orig.sqlstate == state  # type: ignore[attr-defined]
    driver = error.orig.__cause__
    assert isinstance(driver, asyncpg.PostgresError)
    assert driver.table_name == "papers"
    assert driver.detail is None
    name = driver.constraint_name or driver.column_name
    assert f'"{name}"' in safe_error(error)
    assert "\n" not in safe_error(error)


async def test_advanced_alchemy_still_tells_violations_apart(engine: AsyncEngine) -> None:
    expected = {
        "INSERT INTO papers VALUES (2, :v, 1, 1)": alchemy.DuplicateKeyError,
        "INSERT INTO papers VALUES (3, :v || '3', 1, 77)": alchemy.ForeignKeyError,
    }
    for statement, kind in expected.items():
        error = await failure(engine, statement, v=SECRET)
        messages: alchemy.ErrorMessages = {"duplicate_key": "x", "foreign_key": "y"}
        with (
            pytest.raises(kind) as caught,
            alchemy.wrap_sqlalchemy_exception(messages, engine.dialect.name),
        ):
            raise error
        assert SECRET not in shown(caught.value)


POSTGRESQL = {
    "SELECT CAST(CAST(:v AS varchar) AS int)": "22P02",
    "INSERT INTO papers VALUES (9, repeat(:v, 9), 1, 1)": "22001",
    "SELECT say(:v, '23505')": "23505",
    "SELECT say(:v, '42501')": "42501",
    "SELECT say(:v, 'P0001')": "P0001",
    "SELECT 1 WHERE :v = 1": "22000",
    "SELECT CAST(:v AS uuid)": "22000",
    "SELECT CAST(:v AS timestamp)": "22000",
    "SELECT CAST(:v AS json)": "22P02",
    "SELECT * FROM nowhere WHERE v = :v": "42P01",
    "SELECT current_setting(:v)": "42704",
    "SELECT CAST(CAST(:v AS text) AS regclass)": "42P01",
    "SELECT CAST(CAST(:v AS text) AS regtype)": "42704",
    "SELECT CAST(CAST(:v AS text) AS regoper)": "42883",
    "SELECT CAST(:v || '.t' AS regclass)": "3F000",
    "SELECT CAST(:v || '.a.b.c' AS regclass)": "42601",
    "SELECT ask_for(:v)": "42703",
    "SELECT ask_for('papers.' || :v)": "42703",
    "SELECT set_config('work_mem', :v, false)": "22023",
    "INSERT INTO days VALUES (:v)": "22000",
}


@pytest.mark.parametrize("statement", POSTGRESQL)
async def test_no_value_in_an_error_of_postgresql(postgres_url: str, statement: str) -> None:
    engine = engine_for(postgres_url)
    async with engine.begin() as connection:
        for prepared in (*_SCHEMA, _RAISE, _ASK, "CREATE TABLE days (d date)"):
            await connection.exec_driver_sql(prepared)
    error = await failure(engine, statement, v=SECRET)
    await engine.dispose()
    assert code_of(error) == POSTGRESQL[statement]
    assert SECRET not in shown(error)


async def test_the_text_of_a_plain_class_is_kept(postgres_url: str) -> None:
    engine = engine_for(postgres_url)
    error = await failure(engine, "SELECT nocolumn FROM pg_class WHERE relname = :v", v=SECRET)
    await engine.dispose()
    assert safe_error(error) == 'ProgrammingError [42703]: column "nocolumn" does not exist'
    assert 'column "nocolumn" does not exist' in str(error)


@pytest.mark.parametrize(
    ("statement", "kept"),
    [
        ("SELECT p.nocolumn FROM papers p WHERE v = :v", "column p.nocolumn does not exist"),
        ("SELECT v FROM Nowhere WHERE v = :v", 'relation "nowhere" does not exist'),
        ("SELECT nofunction(v) FROM papers WHERE v = :v", "function nofunction(text) does not"),
        ("SELECT 1 FROM papers WHERE v = :v AND id = v", "operator does not exist: integer = text"),
        ("SELEC :v", 'syntax error at or near "SELEC"'),
        (
            "UPDATE papers SET nocolumn = 1 WHERE v = :v",
            'column "nocolumn" of relation "papers" does not exist',
        ),
    ],
)
async def test_the_names_of_the_statement_are_kept(
    postgres_url: str, statement: str, kept: str
) -> None:
    engine = engine_for(postgres_url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE papers (id int, v text)")
    error = await failure(engine, statement, v=SECRET)
    await engine.dispose()
    assert kept in safe_error(error)
    assert kept in str(error)
    scrub(error)  # another time
    for each in wrapped(error):
        assert kept in str(each)
        assert kept in safe_error(each)


def test_a_document_that_is_no_json_is_withheld() -> None:
    error = json.JSONDecodeError("message", SECRET, 0)
    scrub(error)
    assert SECRET not in shown(error)


async def test_the_place_of_a_wrong_argument_is_kept(postgres_url: str) -> None:
    engine = engine_for(postgres_url)
    error = await failure(engine, "SELECT 1 WHERE :v = 1", v=SECRET)
    await engine.dispose()
    assert "invalid input for query argument $1;" in str(error)


SQLITE: dict[str, object] = {
    "SELECT json(:v)": SECRET,
    "SELECT json_extract('{}', :v)": SECRET,
    "SELECT * FROM words WHERE words MATCH :v": f'"{SECRET}',
    "SELECT * FROM words WHERE words MATCH :v ": f"{SECRET}:x",
    "SELECT :v": f"{SECRET}\ud800",
    "SELECT  :v": 2**70,
    "SELECT   :v": {SECRET},
    "UPDATE papers SET v = :v": SECRET,
    "SELECT * FROM nowhere WHERE v = :v": SECRET,
}


@pytest.mark.parametrize("statement", SQLITE)
async def test_no_value_in_an_error_of_sqlite(sqlite_url: str, statement: str) -> None:
    engine = engine_for(sqlite_url)
    async with engine.begin() as connection:
        for prepared in (*_SCHEMA, _TRIGGER, "CREATE VIRTUAL TABLE words USING fts5 (word)"):
            await connection.exec_driver_sql(prepared)
    error = await failure(engine, statement, v=SQLITE[statement])
    await engine.dispose()
    assert SECRET not in shown(error)
    assert str(2**70) not in shown(error)


async def test_the_words_of_the_statement_are_kept_on_sqlite(sqlite_url: str) -> None:
    engine = engine_for(sqlite_url)
    error = await failure(engine, "SELECT * FROM nowhere WHERE v = :v", v=SECRET)
    await engine.dispose()
    assert safe_error(error) == "OperationalError [SQLITE_ERROR]: no such table: nowhere"
    assert "no such table: nowhere" in str(error.__cause__)


async def test_a_missing_parameter_is_named(engine: AsyncEngine) -> None:
    error = await failure(engine, "SELECT :v, :w", v=SECRET)
    assert "parameter 'w'" in safe_error(error)
    assert SECRET not in shown(error)


async def test_no_value_in_an_error_of_a_type(engine: AsyncEngine) -> None:
    class Colour(enum.Enum):
        RED = 1

    error = await failure(
        engine, select(bindparam("v", type_=Enum(Colour, validate_strings=True))), v=SECRET
    )
    assert isinstance(error, exc.StatementError)
    assert "LookupError" in str(error)
    assert SECRET not in shown(error)


async def test_a_scrubbed_error_can_be_pickled_and_scrubbed_again(engine: AsyncEngine) -> None:
    error = await failure(engine, "INSERT INTO papers VALUES (2, :v, 1, 1)", v=SECRET)
    before = str(error)
    scrub(error)
    assert str(error) == before
    assert SECRET not in shown(pickle.loads(pickle.dumps(error)))


def test_the_errors_of_a_group_are_scrubbed() -> None:
    one = exc.DBAPIError("SELECT 1", {"v": SECRET}, sqlite3.OperationalError(SECRET))
    scrub(BaseExceptionGroup("all", [one]))
    assert SECRET not in shown(one)


def test_an_error_of_the_application_stays_as_it_is() -> None:
    class PaperError(Exception):
        pass

    context, error = (
        ValueError("of the application"),
        exc.DBAPIError("SELECT 1", None, PaperError("x")),
    )
    error.__context__ = context
    scrub(error)
    own = PaperError("of the application")
    scrub(own)
    assert (str(context), str(own)) == ("of the application", "of the application")


def test_an_error_without_an_original_loses_its_parameters() -> None:
    error = exc.StatementError("text", "SELECT 1", {"v": SECRET}, None)
    scrub(error)
    assert (error.orig, safe_error(error)) == (None, "StatementError: text")
    assert SECRET not in shown(error)


def test_our_error_keeps_its_message_and_its_driver_is_scrubbed() -> None:
    driver = asyncpg.PostgresError.new({"C": "22P02", "M": SECRET, "D": SECRET})
    error = DatabaseUnavailableError("the server is gone", orig=driver)
    scrub(error)
    assert str(error) == "the server is gone"
    assert safe_error(error) == "DatabaseUnavailableError [22P02]: the server is gone"
    assert SECRET not in str(driver)


def test_notes_and_the_bytes_of_a_unicode_error_are_withheld() -> None:
    error = UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, "reason")
    error.add_note(SECRET)
    scrub(error)
    assert SECRET not in shown(error)
    assert SECRET.encode() not in error.object


def test_the_cause_of_a_drivers_error_is_withheld_unless_the_systems() -> None:
    for cause, kept in ((ValueError(SECRET), False), (OSError("host"), True)):
        error = asyncpg.InterfaceError("text")
        error.__cause__ = cause
        scrub(error)
        assert (str(cause) == "host") == kept
        assert SECRET not in shown(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), "TimeoutError: time limit exceeded"),
        (ConnectionRefusedError(111, "refused"), "ConnectionRefusedError: [Errno 111] refused"),
        (exc.InvalidRequestError("two\nlines"), "InvalidRequestError: two lines"),
        (asyncpg.InterfaceError("connection is closed"), "InterfaceError: connection is closed"),
        (exc.StatementError("text", None, None, None), "StatementError: text"),
    ],
)
def test_a_safe_text_is_kept(error: BaseException, expected: str) -> None:
    assert safe_error(error) == expected


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        exc.ArgumentError(SECRET),
        exc.PendingRollbackError(SECRET),
        exc.StatementError(SECRET, "SELECT 1", None, ValueError(SECRET)),
        sqlite3.OperationalError(SECRET),
        sqlite3.ProgrammingError(SECRET),
        asyncpg.PostgresError.new({"C": "23505", "M": SECRET}),
        asyncpg.PostgresError.new({"C": "99999", "M": SECRET, "t": "papers"}),
    ],
)
def test_a_text_that_may_hold_values_is_withheld(error: BaseException) -> None:
    assert SECRET not in safe_error(error)
    assert type(error).__name__ in safe_error(error)
    scrub(error)
    assert SECRET not in safe_error(error)


def test_a_repository_error_tells_its_cause() -> None:
    error = alchemy.RepositoryError(detail=SECRET)
    error.__cause__ = exc.IntegrityError(
        "SELECT 1", None, asyncpg.PostgresError.new({"C": "23505", "M": "m", "n": "uq_v"})
    )
    expected = 'duplicate key value violates unique constraint "uq_v"'
    assert safe_error(error) == f"RepositoryError [23505]: IntegrityError [23505]: {expected}"


def test_a_stand_in_without_the_drivers_error_is_withheld() -> None:
    from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi

    error = AsyncAdapt_asyncpg_dbapi.InterfaceError(SECRET)  # type: ignore[no-untyped-call]
    assert SECRET not in safe_error(error)


# --- URLs ---


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:p@s/s@h/db", "postgresql://***"),
        ("postgresql+asyncpg://u:p@s/s@h/db", "postgresql+asyncpg://***"),
        ("p@ss:w://u:p@h", "***"),
        ("password", "***"),
        ("", "***"),
    ],
)
def test_a_url_is_shown_as_far_as_it_is_understood(url: str, expected: str) -> None:
    assert safe_url(url) == expected


def test_the_url_of_sqlalchemy_is_shown_safely() -> None:
    assert (
        safe_url(URL.create("postgresql", "u", "p@s", "h", 1, "db")) == "postgresql://u:***@h:1/db"
    )
    # SQLAlchemy takes the rest of this password for a part of the host.
    assert safe_url(make_url("postgresql://u:p@ss@h/db")) == "postgresql://u:***@h/db"


HOSTILE = st.text(st.sampled_from("@:/?#%&=+ '\"\\[],;é☃1a") | st.characters(), max_size=6)
START, END = "QxStartQ", "QxEndQ"


@given(HOSTILE, HOSTILE, st.sampled_from(["password", "sslpassword"]))
@example("@", "@", "password")
@example("1/", "@", "password")
def test_no_piece_of_a_password_is_shown(before: str, after: str, name: str) -> None:
    """As it is, not percent-encoded: a mistake that people make."""
    password = f"{before}{START}{after}"
    for url in (
        f"postgresql://ann:{password}@host/db",
        f"postgresql://ann:{password}{END}@host:5432/db?sslmode=require",
        f"postgresql://host/db?{name}={password}",
        f"postgresql://ann:x@host/db?sslmode=require&{name}={password}{END}",
    ):
        assert START not in safe_url(url)
        assert END not in safe_url(url)


async def test_sql_in_a_string_is_told_as_that_and_not_shown(sqlite_url: str) -> None:
    async with AsyncSession(engine_for(sqlite_url)) as session:
        with pytest.raises(exc.ArgumentError) as caught:
            await session.execute(f"select '{SECRET}'")  # type: ignore[call-overload]
    assert safe_error(caught.value) == (
        "ArgumentError: SQL in a string must be declared as text(...), from sqlalchemy"
    )
