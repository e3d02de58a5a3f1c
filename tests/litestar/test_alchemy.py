"""An application written for advanced-alchemy's Litestar plugin, with plugin and config swapped.

Where a test takes `swap`, it runs with advanced-alchemy's own two classes and with ours, and
nothing else differs.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
)
from litestar import Litestar, Request, get
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import NullPool

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.litestar import ReviewPointDBPlugin, SessionDep, SQLAlchemyAsyncConfig
from tests.support.alchemy import (
    Swap,
    Writer,
    WriterController,
    connection_string,
    engine_url,
    note,
    seen_by,
)
from tests.support.asgi import client, running
from tests.support.notes import held, metadata, notes, write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    # advanced-alchemy 1.9 warns of what it calls by itself.
    pytest.mark.filterwarnings("ignore:.*set_async_context"),
    pytest.mark.filterwarnings("ignore:.*reset_async_context"),
]


class TestRepositories:
    @pytest.mark.filterwarnings("ignore:.*'list_and_count'")  # named otherwise from 1.10 on
    async def test_services_dtos_and_errors(self, swap: Swap, database_url: str) -> None:
        alchemy = swap.config(
            connection_string=connection_string(database_url),
            before_send_handler="autocommit",
            session_config=AsyncSessionConfig(expire_on_commit=False),
            metadata=Writer.metadata,
            create_all=True,
        )
        app = Litestar([WriterController], plugins=[swap.plugin(alchemy)])
        async with running(app), client(app) as http:
            made = await http.post("/writers", json={"name": "Ann"})
            assert made.status_code == 201
            ann = made.json()
            assert str(UUID(ann["id"])) == ann["id"]
            assert dt.datetime.fromisoformat(ann["created_at"]).tzinfo is not None
            assert (await http.get(f"/writers/{ann['id']}")).json()["name"] == "Ann"
            page = (await http.get("/writers")).json()
            assert (page["total"], page["items"][0]["name"]) == (1, "Ann")

            twice = await http.post("/writers", json={"name": "Ann"})
            assert (twice.status_code, twice.json()["detail"]) == (409, "Name taken")
            nobody = await http.get(f"/writers/{UUID(int=1)}")
            assert nobody.status_code == 404
            assert (await http.get("/writers")).json()["total"] == 1

            renamed = (await http.patch(f"/writers/{ann['id']}", json={"name": "Bea"})).json()
            stamps = [key for key in ann if key.startswith("updated")]
            assert renamed[stamps[0]] > ann[stamps[0]]

    async def test_they_work_on_a_plugin_with_our_own_config(self, database_url: str) -> None:
        plugin = ReviewPointDBPlugin(
            DatabaseConfig(url=database_url),
            commit="autocommit",
            metadata=Writer.metadata,
            create_all=True,
        )
        app = Litestar([WriterController, engine_url], plugins=[plugin])
        async with running(app), client(app) as http:
            ann = (await http.post("/writers", json={"name": "Ann"})).json()
            twice = await http.post("/writers", json={"name": "Ann"})
            assert (twice.status_code, twice.json()["detail"]) == (409, "Name taken")
            renamed = (await http.patch(f"/writers/{ann['id']}", json={"name": "Bea"})).json()
            stamps = [key for key in ann if key.startswith("updated")]
            assert renamed[stamps[0]] > ann[stamps[0]]
            assert (await http.get("/engine")).status_code == 200
            assert held(plugin.database) == 0


class TestTests:
    """What test suites of such applications do to the configuration."""

    async def test_a_session_maker_in_the_applications_state_is_asked_at_each_request(
        self, swap: Swap, url: str
    ) -> None:
        alchemy = swap.config(connection_string=url, metadata=metadata, create_all=True)
        app = Litestar([note], plugins=[swap.plugin(alchemy)])
        made: list[AsyncSession] = []
        async with running(app), client(app) as http:
            await http.post("/note?text=a&status=201")
            maker = app.state[alchemy.session_maker_app_state_key]

            def mine() -> AsyncSession:
                made.append(maker())
                return made[-1]

            app.state[alchemy.session_maker_app_state_key] = mine
            await http.post("/note?text=a&status=201")
            assert len(made) == 1
            assert not made[0].in_transaction()

    async def test_engine_and_session_maker_set_later_are_used(
        self, swap: Swap, url: str, tmp_path: Path
    ) -> None:
        alchemy = swap.config(
            connection_string=url,
            before_send_handler="autocommit",
            metadata=metadata,
            create_all=True,
        )
        app = Litestar([note, engine_url], plugins=[swap.plugin(alchemy)])
        other = f"{tmp_path / 'other.sqlite3'}"
        alchemy.engine_instance = create_async_engine(
            f"sqlite+aiosqlite:///{other}", poolclass=NullPool
        )
        alchemy.session_maker = async_sessionmaker(alchemy.engine_instance)
        async with running(app), client(app) as http:
            assert app.state[alchemy.engine_app_state_key] is alchemy.engine_instance
            assert (await http.get("/engine")).text == other
            assert (await http.post("/note?text=a&status=201")).status_code == 201
            assert await seen_by(app, alchemy) == ["a"]
            assert alchemy.create_session_maker() is alchemy.session_maker

    async def test_an_engine_set_later_is_that_of_the_sessions(
        self, swap: Swap, url: str, tmp_path: Path
    ) -> None:
        alchemy = swap.config(
            connection_string=url,
            before_send_handler="autocommit",
            metadata=metadata,
            create_all=True,
        )
        app = Litestar([note], plugins=[swap.plugin(alchemy)])
        other = f"{tmp_path / 'other.sqlite3'}"
        alchemy.engine_instance = create_async_engine(f"sqlite+aiosqlite:///{other}")
        async with running(app), client(app) as http:
            assert (await http.post("/note?text=a&status=201")).status_code == 201
        engine = create_async_engine(f"sqlite+aiosqlite:///{other}")
        async with engine.connect() as connection:
            assert (await connection.scalars(select(notes.c.text))).all() == ["a"]
        await engine.dispose()

    async def test_sessions_outside_of_requests(self, swap: Swap, url: str) -> None:
        alchemy = swap.config(connection_string=url, metadata=metadata, create_all=True)
        app = Litestar([note], plugins=[swap.plugin(alchemy)])
        async with running(app):
            async with alchemy.get_session() as session:
                await write(session, "a")
                await session.commit()
            scope: Any = {"type": "http"}
            session = alchemy.provide_session(app.state, scope)
            assert alchemy.provide_session(app.state, scope) is session
            assert await session.scalar(select(func.count(notes.c.id))) == 1
            await session.close()

    async def test_provide_session_inside_of_a_request_is_the_requests(
        self, swap: Swap, url: str
    ) -> None:
        @get("/")
        async def handler(request: Request[Any, Any, Any], db_session: SessionDep) -> bool:
            provided = alchemy.provide_session(request.app.state, request.scope)
            again = alchemy.provide_session(request.app.state, request.scope)
            return provided is again is db_session

        alchemy = swap.config(connection_string=url)
        app = Litestar([handler], plugins=[swap.plugin(alchemy)])
        async with running(app), client(app) as http:
            assert (await http.get("/")).text == "true"

    async def test_requests_without_a_lifespan(self, url: str) -> None:
        """Theirs has no session maker then, and answers 500."""
        alchemy = SQLAlchemyAsyncConfig(connection_string=url)

        @get("/")
        async def handler(db_session: SessionDep) -> int:
            return int(await db_session.scalar(text("select 42")) or 0)

        app = Litestar([handler], plugins=[ReviewPointDBPlugin(alchemy)])
        async with client(app) as http:
            assert (await http.get("/")).text == "42"
        await alchemy.database.stop()

    async def test_a_configuration_serves_many_applications(self, swap: Swap, url: str) -> None:
        alchemy = swap.config(
            connection_string=url,
            before_send_handler="autocommit",
            metadata=metadata,
            create_all=True,
        )
        for text_ in ("a", "b"):
            app = Litestar([note], plugins=[swap.plugin(alchemy)])
            async with running(app), client(app) as http:
                assert (await http.post(f"/note?text={text_}&status=201")).status_code == 201
        async with running(app):
            assert await seen_by(app, alchemy) == ["a", "b"]
