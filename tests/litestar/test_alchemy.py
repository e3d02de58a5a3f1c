"""An application written for advanced-alchemy's Litestar plugin, with plugin and config swapped.

Where a test takes `swap`, it runs with advanced-alchemy's own two classes and with ours, and
nothing else differs.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from advanced_alchemy.base import UUIDAuditBase
from advanced_alchemy.config.routing import RoutingConfig
from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    EngineConfig,
    SQLAlchemyPlugin,
    async_autocommit_before_send_handler,
    async_autocommit_handler_maker,
)
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig as TheirConfig
from advanced_alchemy.filters import LimitOffset
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import OffsetPagination, SQLAlchemyAsyncRepositoryService
from litestar import Controller, Litestar, Request, Response, get, patch, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import MetaData, String, func, select, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.pool import NullPool

from reviewpoint_db.config import DatabaseConfig, normalize_url
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.litestar import ReviewPointDBPlugin, SessionDep, SQLAlchemyAsyncConfig
from reviewpoint_db.litestar.commit import commit_rule
from tests.support.asgi import client, running
from tests.support.notes import held, metadata, notes, stored, write, write_orphan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from litestar.types import Message, Scope


pytestmark = [
    # advanced-alchemy 1.9 warns of what it calls by itself.
    pytest.mark.filterwarnings("ignore:.*set_async_context"),
    pytest.mark.filterwarnings("ignore:.*reset_async_context"),
]


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


@pytest.fixture(params=["theirs", "ours"])
async def swap(request: pytest.FixtureRequest) -> AsyncIterator[Swap]:
    if request.param == "ours":
        yield Swap(SQLAlchemyAsyncConfig, ReviewPointDBPlugin)
        return
    made: list[TheirConfig] = []

    def make(**settings: Any) -> TheirConfig:
        made.append(TheirConfig(**settings))
        return made[-1]

    yield Swap(make, SQLAlchemyPlugin)
    for config in made:
        # Their plugin forgets the engine of every configuration but the process's first.
        await config.get_engine().dispose()


@pytest.fixture
def url(sqlite_url: str) -> str:
    return connection_string(sqlite_url)


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


class TestCommitModes:
    @pytest.mark.parametrize(
        ("handler", "kept"),
        [
            (None, []),
            ("autocommit", [200, 201]),
            ("autocommit_include_redirects", [200, 201, 303]),
            (async_autocommit_handler_maker(commit_on_redirect=True), [200, 201, 303]),
            (
                async_autocommit_handler_maker(
                    extra_commit_statuses={418}, extra_rollback_statuses={201}
                ),
                [200, 418],
            ),
        ],
    )
    async def test_which_statuses_are_stored(
        self, swap: Swap, url: str, handler: Any, kept: list[int]
    ) -> None:
        # Their makers name the scope's key at the time they are made.
        alchemy = swap.config(
            connection_string=url, before_send_handler=handler, metadata=metadata, create_all=True
        )
        if callable(handler):
            alchemy.session_scope_key = "_sqlalchemy_db_session"
        app = Litestar([note], plugins=[swap.plugin(alchemy)])
        async with running(app), client(app) as http:
            for status in (200, 201, 303, 400, 418, 500):
                assert (
                    await http.post(f"/note?text={status}&status={status}")
                ).status_code == status
            assert await seen_by(app, alchemy) == [str(status) for status in kept]

    async def test_a_hook_of_the_applications_own_is_called_as_it_is(
        self, swap: Swap, url: str
    ) -> None:
        calls: list[tuple[str, bool]] = []

        async def hook(message: Message, scope: Scope) -> None:
            session = scope["_aa_connection_state"].get(alchemy.session_scope_key)  # type: ignore[typeddict-item]
            calls.append((message["type"], session is not None))
            if message["type"] == "http.response.start":
                await session.commit()
                await session.close()

        alchemy = swap.config(
            connection_string=url, before_send_handler=hook, metadata=metadata, create_all=True
        )
        app = Litestar([note], plugins=[swap.plugin(alchemy)])
        async with running(app), client(app) as http:
            await http.post("/note?text=a&status=500")
            assert calls == [("http.response.start", True), ("http.response.body", True)]
            assert await seen_by(app, alchemy) == ["a"]

    @pytest.mark.parametrize(
        "handler",
        ["autocommit", async_autocommit_handler_maker(), async_autocommit_before_send_handler],
    )
    async def test_a_failed_commit_is_told(self, url: str, handler: Any) -> None:
        """The one thing that is different from theirs, on purpose: there it is a silent 201."""
        alchemy = SQLAlchemyAsyncConfig(
            connection_string=url, before_send_handler=handler, metadata=metadata, create_all=True
        )
        app = Litestar([note], plugins=[ReviewPointDBPlugin(alchemy)])
        async with running(app), client(app) as http:
            assert (await http.post("/note?text=orphan&status=201")).status_code == 409
            assert await stored(alchemy.database) == []
            assert held(alchemy.database) == 0

    def test_what_their_makers_made_is_understood(self) -> None:
        """Their makers leave the statuses in the closure: this fails when they stop doing so."""
        rule = commit_rule(async_autocommit_handler_maker(extra_commit_statuses={418}))
        assert [rule.commits(status) for status in (200, 299, 300, 418)] == [
            True,
            True,
            False,
            True,
        ]
        assert (rule.mode, rule.hook) == ("autocommit", None)

    def test_a_handler_set_later_counts(self, url: str) -> None:
        alchemy = SQLAlchemyAsyncConfig(connection_string=url)
        alchemy.before_send_handler = "autocommit"
        assert alchemy.serve().mode == "autocommit"
        assert alchemy.serve().mode == "autocommit"


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
