"""The applications that are compared: one route table, six ways to get at a connection.

Each is a Litestar application on the same PostgreSQL with a pool of 5 + 10 (asyncpg's own pool: 15).
`create(name, url)` makes one; `serve.py` runs it under uvicorn.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from advanced_alchemy.extensions.litestar import (
    EngineConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
)
from litestar import Litestar, get, post
from litestar.di import Provide
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from reviewpoint_db import DatabaseConfig, PoolConfig, ReviewPointDBPlugin

SIZE: Final = 5
OVERFLOW: Final = 10
#: Rows of the table that is read and changed.
ROWS: Final = 1000

SCHEMA: Final = """
    DROP TABLE IF EXISTS paper; DROP TABLE IF EXISTS visit;
    CREATE TABLE paper (id integer PRIMARY KEY, title text NOT NULL, views integer NOT NULL);
    INSERT INTO paper SELECT i, 'Paper ' || i, 0 FROM generate_series(0, 999) AS i;
    CREATE TABLE visit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, paper integer NOT NULL)
"""
READ: Final = text("SELECT title FROM paper WHERE id = :id")
VIEW: Final = text("UPDATE paper SET views = views + 1 WHERE id = :id")
VISIT: Final = text("INSERT INTO visit (paper) VALUES (:id)")


@get("/none/{paper:int}")
async def none(paper: int) -> dict[str, str]:
    """Answer without the database."""
    return {"title": f"Paper {paper}"}


@get("/read/{paper:int}")
async def read(paper: int, db_read_session: AsyncSession) -> dict[str, str]:
    """Answer from one SELECT."""
    return {"title": (await db_read_session.execute(READ, {"id": paper})).scalar_one()}


@get("/session/{paper:int}")
async def session(paper: int, db_session: AsyncSession) -> dict[str, str]:
    """Answer from one SELECT in a transaction."""
    return {"title": (await db_session.execute(READ, {"id": paper})).scalar_one()}


@get("/change/{paper:int}")
async def change(paper: int, db_session: AsyncSession) -> dict[str, str]:
    """SELECT, UPDATE, COMMIT."""
    title = (await db_session.execute(READ, {"id": paper})).scalar_one()
    await db_session.execute(VIEW, {"id": paper})
    await db_session.commit()
    return {"title": title}


@post("/insert/{paper:int}")
async def insert(paper: int, db_session: AsyncSession) -> dict[str, str]:
    """INSERT, COMMIT."""
    await db_session.execute(VISIT, {"id": paper})
    await db_session.commit()
    return {"title": f"Paper {paper}"}


HANDLERS: Final = [none, read, session, change, insert]


def reviewpoint(url: str, *, observe: bool = True, freeze_gc: bool = False) -> Litestar:
    """This package as it runs in production, its page included."""
    config = DatabaseConfig(
        url=url,
        environment="prod",
        pool=PoolConfig(size=SIZE, max_overflow=OVERFLOW, timeout=30),
        observe=observe,
    )
    plugin = ReviewPointDBPlugin(config, debug_token="b" * 32, freeze_gc=freeze_gc)
    return Litestar(HANDLERS, plugins=[plugin], openapi_config=None)


def advanced_alchemy(url: str, *, pre_ping: bool = False) -> Litestar:
    """advanced-alchemy's plugin; its only session serves the read route too."""
    config = SQLAlchemyAsyncConfig(
        connection_string=_asyncpg(url),
        engine_config=EngineConfig(pool_size=SIZE, max_overflow=OVERFLOW, pool_pre_ping=pre_ping),
    )

    async def same(db_session: AsyncSession) -> AsyncSession:
        return db_session

    return Litestar(
        HANDLERS,
        plugins=[SQLAlchemyPlugin(config)],
        dependencies={"db_read_session": Provide(same)},
        openapi_config=None,
    )


def plain_sqlalchemy(url: str) -> Litestar:
    """SQLAlchemy by hand: a generator dependency around a session."""
    engine = create_async_engine(_asyncpg(url), pool_size=SIZE, max_overflow=OVERFLOW)
    maker = async_sessionmaker(engine, expire_on_commit=False)

    async def provide() -> AsyncIterator[AsyncSession]:
        async with maker() as opened:
            yield opened

    return _by_hand(provide, engine)


def original(url: str) -> Litestar:
    """The original module's way, written anew from its specification: a SELECT 1 a session."""
    engine = create_async_engine(
        _asyncpg(url), pool_size=SIZE, max_overflow=OVERFLOW, pool_pre_ping=True
    )
    maker = async_sessionmaker(engine, expire_on_commit=False)

    async def provide() -> AsyncIterator[AsyncSession]:
        opened = maker()
        try:
            await opened.execute(text("SELECT 1"))
            yield opened
        except SQLAlchemyError:
            await opened.rollback()
            raise
        finally:
            await opened.close()

    return _by_hand(provide, engine)


def _by_hand(provide: Callable[[], AsyncIterator[AsyncSession]], engine: AsyncEngine) -> Litestar:
    async def same(db_session: AsyncSession) -> AsyncSession:
        return db_session

    return Litestar(
        HANDLERS,
        dependencies={"db_session": Provide(provide), "db_read_session": Provide(same)},
        on_shutdown=[engine.dispose],
        openapi_config=None,
    )


def raw_asyncpg(url: str) -> Litestar:
    """Asyncpg's own pool without SQLAlchemy: what the driver can do."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with asyncpg.create_pool(url, min_size=0, max_size=SIZE + OVERFLOW) as pool:
            app.state.pool = pool
            yield

    async def title(app: Litestar, paper: int) -> dict[str, str]:
        return {"title": await app.state.pool.fetchval(_READ, paper)}

    @get("/read/{paper:int}")
    async def raw_read(paper: int, request: Any) -> dict[str, str]:
        return await title(request.app, paper)

    @get("/session/{paper:int}")
    async def raw_session(paper: int, request: Any) -> dict[str, str]:
        async with request.app.state.pool.acquire() as connection, connection.transaction():
            return {"title": await connection.fetchval(_READ, paper)}

    @get("/change/{paper:int}")
    async def raw_change(paper: int, request: Any) -> dict[str, str]:
        async with request.app.state.pool.acquire() as connection, connection.transaction():
            found = await connection.fetchval(_READ, paper)
            await connection.execute("UPDATE paper SET views = views + 1 WHERE id = $1", paper)
            return {"title": found}

    @post("/insert/{paper:int}")
    async def raw_insert(paper: int, request: Any) -> dict[str, str]:
        await request.app.state.pool.execute("INSERT INTO visit (paper) VALUES ($1)", paper)
        return {"title": f"Paper {paper}"}

    handlers = [none, raw_read, raw_session, raw_change, raw_insert]
    return Litestar(handlers, lifespan=[lifespan], openapi_config=None)


_READ: Final = "SELECT title FROM paper WHERE id = $1"


def _asyncpg(url: str) -> str:
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


CONTENDERS: Final[dict[str, Callable[[str], Litestar]]] = {
    "asyncpg's pool": raw_asyncpg,
    "plain SQLAlchemy": plain_sqlalchemy,
    "advanced-alchemy": advanced_alchemy,
    "advanced-alchemy, pre-ping": lambda url: advanced_alchemy(url, pre_ping=True),
    "the original's way": original,
    "reviewpoint_db": reviewpoint,
    "reviewpoint_db, freeze_gc": lambda url: reviewpoint(url, freeze_gc=True),
    "reviewpoint_db, unobserved": lambda url: reviewpoint(url, observe=False),
}


def create(name: str, url: str) -> Litestar:
    """Make a contender's application.

    Args:
        name: A key of `CONTENDERS`.
        url: The PostgreSQL database, without credentials in anything that is printed.
    """
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    return CONTENDERS[name](url)
