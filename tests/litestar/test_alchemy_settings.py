"""The fields of advanced-alchemy's configuration under our plugin."""

from __future__ import annotations

from typing import Any

import pytest
from advanced_alchemy.config.routing import RoutingConfig
from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    EngineConfig,
    SQLAlchemyPlugin,
)
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig as TheirConfig
from litestar import Litestar, get
from litestar.di import Provide
from sqlalchemy import MetaData, select, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    create_async_engine,
)

from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.litestar import ReviewPointDBPlugin, SessionDep, SQLAlchemyAsyncConfig
from tests.support.alchemy import Swap, connection_string, engine_url, note, seen_by
from tests.support.asgi import client, running
from tests.support.notes import metadata, write

pytestmark = [
    # advanced-alchemy 1.9 warns of what it calls by itself.
    pytest.mark.filterwarnings("ignore:.*set_async_context"),
    pytest.mark.filterwarnings("ignore:.*reset_async_context"),
]


class TestSettings:
    async def test_an_engine_of_the_applications_own(self, swap: Swap, url: str) -> None:
        engine = create_async_engine(url)
        alchemy = swap.config(engine_instance=engine, metadata=metadata, create_all=True)
        app = Litestar([note], plugins=[swap.plugin(alchemy)])
        for _ in range(2):
            async with running(app), client(app) as http:
                assert alchemy.get_engine() is engine
                assert (await http.post("/note?text=a&status=201")).status_code == 201
            if swap.plugin is ReviewPointDBPlugin:
                assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]

    async def test_its_errors_are_told_like_ours(self, url: str) -> None:
        alchemy = SQLAlchemyAsyncConfig(
            engine_instance=create_async_engine(url), metadata=metadata, create_all=True
        )
        app = Litestar([note], plugins=[ReviewPointDBPlugin(alchemy)], debug=True)
        async with running(app), client(app) as http:
            response = await http.post("/note?text=a&status=201")
            async with alchemy.get_session() as session:
                await write(session, "s3cret")
                await session.commit()
            response = await http.post("/note?text=s3cret&status=201")
            assert response.status_code == 409
            assert "s3cret" not in response.text
            assert (await http.get("/db/health")).json()["status"] == "healthy"
            assert (await http.get("/db/debug")).status_code == 200

    async def test_a_function_that_makes_the_engine(self, swap: Swap, url: str) -> None:
        made: list[AsyncEngine] = []

        def make(connection_string: str, **settings: Any) -> AsyncEngine:
            made.append(create_async_engine(connection_string, **settings))
            return made[-1]

        alchemy = swap.config(connection_string=url, create_engine_callable=make)
        app = Litestar([engine_url], plugins=[swap.plugin(alchemy)])
        async with running(app), client(app) as http:
            assert (await http.get("/engine")).status_code == 200
            assert alchemy.get_engine() is made[0]
        assert len(made) == 1

    async def test_several_databases(self, swap: Swap, url: str, postgres_url: str) -> None:
        @get("/both")
        async def both(db_session: SessionDep, reports_session: SessionDep) -> list[str]:
            kinds = [db_session.get_bind().dialect.name, reports_session.get_bind().dialect.name]
            await db_session.execute(text("select 1"))
            await reports_session.execute(text("select 1"))
            return kinds

        first = swap.config(connection_string=url)
        second = swap.config(
            connection_string=connection_string(postgres_url),
            bind_key="reports",
            metadata=MetaData(),
            session_dependency_key="reports_session",
            engine_dependency_key="reports_engine",
        )
        app = Litestar([both], plugins=[swap.plugin([first, second])])
        async with running(app), client(app) as http:
            assert (await http.get("/both")).json() == ["sqlite", "postgresql"]
            assert app.state[second.engine_app_state_key].dialect.name == "postgresql"
            if swap.plugin is ReviewPointDBPlugin:
                assert (await http.get("/db/debug")).json()["name"] == "default"
                assert (await http.get("/db/reports/debug")).json()["name"] == "reports"

    async def test_read_sessions_are_named_after_the_sessions(self, url: str) -> None:
        @get("/")
        async def handler(a_read_session: SessionDep, b_read: SessionDep) -> list[Any]:
            one = select(text("1"))
            return [await a_read_session.scalar(one), await b_read.scalar(one)]

        configs = [
            SQLAlchemyAsyncConfig(connection_string=url, session_dependency_key="a_session"),
            SQLAlchemyAsyncConfig(
                connection_string=url,
                bind_key="b",
                session_dependency_key="b",
                engine_dependency_key="b_engine",
            ),
        ]
        app = Litestar([handler], plugins=[ReviewPointDBPlugin(configs, path=None)])
        async with running(app), client(app) as http:
            assert (await http.get("/")).json() == [1, 1]
            assert (await http.get("/db/health")).status_code == 404

    async def test_settings_of_sessions_and_engine(self, url: str) -> None:
        class Mine(AsyncSession):
            pass

        alchemy = SQLAlchemyAsyncConfig(
            connection_string=url,
            session_config=AsyncSessionConfig(
                class_=Mine, expire_on_commit=True, autoflush=False, info={"mine": 1}
            ),
            engine_config=EngineConfig(
                pool_size=3,
                max_overflow=4,
                pool_timeout=7,
                pool_recycle=300,
                pool_pre_ping=True,
                pool_use_lifo=True,
                execution_options={"mine": 2},
            ),
        )
        pool = alchemy.database.config.pool
        assert pool is not None
        assert (pool.size, pool.max_overflow, pool.timeout, pool.max_lifetime) == (3, 4, 7, 300)
        async with alchemy.get_session() as session:
            assert isinstance(session, Mine)
            assert session.sync_session.expire_on_commit
            assert not session.sync_session.autoflush
            assert session.info["mine"] == 1
            connection = (await session.connection()).sync_connection
            assert connection is not None
            assert connection.get_execution_options()["mine"] == 2
        await alchemy.database.stop()

    def test_defaults(self, url: str) -> None:
        alchemy = SQLAlchemyAsyncConfig(
            connection_string=url, engine_config=EngineConfig(pool_recycle=-1)
        )
        assert alchemy.database.config.pool is None
        assert alchemy.database.name == "default"
        assert not alchemy.create_session_maker()().sync_session.expire_on_commit

    async def test_without_an_address_the_environment_is_asked(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REVIEWPOINT_DB_URL", url)
        alchemy = SQLAlchemyAsyncConfig()
        assert alchemy.database.config.url == url

    async def test_the_environment_counts_but_not_its_address(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("REVIEWPOINT_DB_URL", "postgresql://elsewhere/papers")
        monkeypatch.setenv("REVIEWPOINT_ENVIRONMENT", "prod")
        config = SQLAlchemyAsyncConfig(connection_string=url).database.config
        assert (config.url, config.environment) == (url, "prod")

    def test_routing_is_refused_in_favour_of_read_sessions(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="db_read_session"):
            SQLAlchemyAsyncConfig(routing_config=RoutingConfig(primary_connection_string=url))

    async def test_missing_tables_of_a_database_that_is_down(self, lines: list[str]) -> None:
        alchemy = SQLAlchemyAsyncConfig(
            connection_string="postgresql+asyncpg://ann:s3cret@127.0.0.1:1/papers",
            engine_config=EngineConfig(pool_timeout=1),
            metadata=metadata,
            create_all=True,
        )
        app = Litestar([note], plugins=[ReviewPointDBPlugin(alchemy)])
        async with running(app):
            pass
        assert any("Could not create the missing tables" in line for line in lines)
        assert "s3cret" not in "".join(lines)

    async def test_our_config_under_their_plugin_behaves_as_theirs(self, url: str) -> None:
        alchemy = SQLAlchemyAsyncConfig(
            connection_string=url,
            before_send_handler="autocommit",
            metadata=metadata,
            create_all=True,
        )
        app = Litestar([note], plugins=[SQLAlchemyPlugin(alchemy)])
        async with running(app), client(app) as http:
            assert (await http.post("/note?text=a&status=201")).status_code == 201
            assert await seen_by(app, alchemy) == ["a"]

    def test_no_password_is_shown(self) -> None:
        alchemy = SQLAlchemyAsyncConfig(
            connection_string="postgresql+asyncpg://ann:s3cret@db/papers"
        )
        assert "s3cret" not in repr(alchemy)
        assert "ann" in repr(alchemy)
        assert repr(SQLAlchemyAsyncConfig(bind_key="other")).endswith("connection_string=None)")

    async def test_set_default_exception_handler(self, swap: Swap, url: str) -> None:
        @get("/", dependencies={"n": Provide(lambda: 1, sync_to_thread=False)})
        async def handler() -> None:
            from advanced_alchemy.exceptions import NotFoundError

            raise NotFoundError("none")

        for wanted, status in ((True, 404), (False, 500)):
            alchemy = swap.config(connection_string=url, set_default_exception_handler=wanted)
            app = Litestar([handler], plugins=[swap.plugin(alchemy)])
            async with running(app), client(app) as http:
                assert (await http.get("/")).status_code == status


def test_our_sessions_listen_for_what_theirs_listen_for(url: str) -> None:
    """advanced-alchemy keeps its listeners to itself: this fails when it has another one."""

    def names(config: TheirConfig) -> set[str]:
        session = config.create_session_maker()().sync_session
        return {
            f"{event}: {getattr(function, '__qualname__', function)}"
            for event in ("before_flush", "after_flush", "after_commit", "after_rollback")
            for function in getattr(session.dispatch, event)
            if "advanced_alchemy" in getattr(function, "__module__", "")
        }

    theirs = names(TheirConfig(connection_string=url))
    assert theirs
    assert names(SQLAlchemyAsyncConfig(connection_string=url)) == theirs
    switched_off: Any = {
        "enable_file_object_listener": False,
        "enable_touch_updated_timestamp_listener": False,
    }
    less = names(TheirConfig(connection_string=url, **switched_off))
    assert names(SQLAlchemyAsyncConfig(connection_string=url, **switched_off)) == less < theirs
