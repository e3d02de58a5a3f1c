"""An application written for advanced-alchemy's Litestar plugin, and the two names to swap in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import msgspec
from advanced_alchemy.base import UUIDAuditBase
from advanced_alchemy.filters import LimitOffset
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import OffsetPagination, SQLAlchemyAsyncRepositoryService
from litestar import Controller, Litestar, Response, get, patch, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import String, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Mapped, mapped_column

from reviewpoint_db.config import normalize_url
from reviewpoint_db.litestar import SessionDep
from tests.support.notes import notes, write, write_orphan

if TYPE_CHECKING:
    from collections.abc import Callable

    from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig as TheirConfig
    from advanced_alchemy.extensions.litestar import SQLAlchemyPlugin


class Writer(UUIDAuditBase):
    __tablename__ = "litestar_alchemy_writer"

    name: Mapped[str] = mapped_column(String(50), unique=True)


class Writers(SQLAlchemyAsyncRepositoryService[Writer]):
    class Repository(SQLAlchemyAsyncRepository[Writer]):
        model_type = Writer

    repository_type = Repository


async def provide_writers(db_session: SessionDep) -> Writers:
    taken = "Name taken"
    return Writers(db_session, error_messages={"duplicate_key": taken, "integrity": taken})


class Line(msgspec.Struct):
    """A writer as one line of a list."""

    id: UUID
    name: str


class WriterController(Controller):
    path = "/writers"
    dependencies = {"writers": Provide(provide_writers)}  # noqa: RUF012  as Litestar declares it

    @post("/")
    async def create(
        self, writers: NamedDependency[Writers], data: JSONBody[dict[str, str]]
    ) -> Writer:
        return await writers.create(data)

    @get("/")
    async def index(self, writers: NamedDependency[Writers]) -> OffsetPagination[Line]:
        found, total = await writers.list_and_count(LimitOffset(10, 0))
        return writers.to_schema(found, total, schema_type=Line)

    @get("/{writer_id:uuid}")
    async def one(self, writers: NamedDependency[Writers], writer_id: FromPath[UUID]) -> Writer:
        return await writers.get(writer_id)

    @patch("/{writer_id:uuid}")
    async def rename(
        self,
        writers: NamedDependency[Writers],
        writer_id: FromPath[UUID],
        data: JSONBody[dict[str, str]],
    ) -> Writer:
        return await writers.update(data, item_id=writer_id)


class Swap(NamedTuple):
    """The two names that an application imports."""

    config: Callable[..., TheirConfig]
    plugin: type[SQLAlchemyPlugin]


def connection_string(url: str) -> str:
    return normalize_url(url).render_as_string(hide_password=False)


@post("/note")
async def note(
    db_session: SessionDep, text: FromQuery[str], status: FromQuery[int]
) -> Response[None]:
    await (write_orphan if text == "orphan" else write)(db_session, text)
    return Response(None, status_code=status)


@get("/engine")
async def engine_url(db_engine: NamedDependency[AsyncEngine]) -> str:
    return str(db_engine.url.database)


async def seen_by(app: Litestar, config: TheirConfig) -> list[str]:
    async with config.get_session() as session:
        return list(await session.scalars(select(notes.c.text).order_by(notes.c.text)))
