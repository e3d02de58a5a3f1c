"""What a real server's log shows of database errors that nobody handled: no bound value, no key."""

from __future__ import annotations

import os
from typing import Any

import httpx
from sqlalchemy import MetaData, String, cast, literal, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reviewpoint_db import DatabaseConfig
from reviewpoint_db.starlette import get_session, setup_database
from tests.support.server import AsgiServer

SECRET = "ann.secret@example.org"


class Base(DeclarativeBase):
    metadata = MetaData()


class Reviewer(Base):
    __tablename__ = "logged_reviewers"

    email: Mapped[str] = mapped_column(String(100), primary_key=True)
    points: Mapped[int]


async def value(request: Request) -> Response:
    """The database complains of a value, or the driver does."""
    session = get_session(request)
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(
            text("select cast(cast(:email as text) as integer)"), {"email": SECRET}
        )
    else:
        await session.execute(text("select json(:email)"), {"email": SECRET})
    return Response()


async def kind(request: Request) -> Response:
    """SQLAlchemy, or the driver, complains of a value."""
    session = get_session(request)
    await session.execute(select(cast(literal([SECRET], String), String)))
    return Response()


async def missing(request: Request) -> Response:
    """A row that is to be changed is not there."""
    session = get_session(request)
    session.add(Reviewer(email=SECRET, points=1))
    await session.flush()
    reviewer = await session.get_one(Reviewer, SECRET)
    await session.execute(text("delete from logged_reviewers"))
    reviewer.points = 2
    await session.flush()
    return Response()


async def twice(request: Request) -> Response:
    """Two objects with one key."""
    session = get_session(request)
    session.add(Reviewer(email=SECRET, points=1))
    await session.flush()
    other = await session.get_one(Reviewer, SECRET)
    session.expunge(other)
    await session.merge(Reviewer(email=SECRET, points=2))
    session.add(other)
    return Response()


async def no_such(request: Request) -> Response:
    """An object that nobody has stored."""
    await get_session(request).get_one(Reviewer, SECRET)
    return Response()


UNHANDLED = {
    "value": value,
    "kind": kind,
    "missing": missing,
    "twice": twice,
    "no_such": no_such,
}


def app() -> Starlette:
    made = Starlette(routes=[Route(f"/{name}", fn) for name, fn in UNHANDLED.items()])
    config = DatabaseConfig(url=os.environ["REVIEWPOINT_DB_URL"], environment="dev")
    setup_database(made, config, create_all=True, metadata=Base.metadata)
    return made


def test_the_servers_log_shows_errors_without_values_and_keys(database_url: str) -> None:
    env: dict[str, Any] = {"REVIEWPOINT_DB_URL": database_url}
    with AsgiServer("tests.test_error_log:app", env=env, options=("--factory",)) as server:
        for name in UNHANDLED:
            answer = httpx.get(f"{server.url}/{name}", timeout=30)
            assert answer.status_code == 500, (name, answer.text, server.log)
            assert SECRET not in answer.text
        server.stop()
        log = server.log
    assert log.count("Exception in ASGI application") == len(UNHANDLED)
    assert [line for line in log.splitlines() if "secret@" in line] == []
    assert "StaleDataError" in log
    assert "another instance with key ...;" in log
    assert "Reviewer" in log
