"""A parameter annotated `Database` is filled in, whatever its name and wherever it stands."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from litestar import Controller, Litestar, Router, asgi, get, websocket_listener
from litestar.di import NamedDependency, Provide
from litestar.handlers import WebsocketListener
from sqlalchemy import text

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.litestar import DatabaseDep, ReadSessionDep, ReviewPointDBPlugin, SessionDep
from tests.support.asgi import WebSocketClient, client, running

if TYPE_CHECKING:
    from litestar.params import FromQuery
    from litestar.types import Receive, Scope, Send

    from reviewpoint_db.database import Database

PLUGINS = (
    ReviewPointDBPlugin(DatabaseConfig(url="sqlite:///:memory:")),
    ReviewPointDBPlugin(
        DatabaseConfig(url="sqlite:///:memory:", name="reports"),
        path=None,
        session_key="s",
        read_session_key="r",
    ),
)


async def ask(app: Litestar, path: str) -> Any:
    async with running(app), client(app) as http:
        return (await http.get(path)).json()


async def test_into_handlers_under_any_name() -> None:
    @get("/")
    async def handler(
        one: DatabaseDep,
        reports: DatabaseDep,
        two: Annotated[DatabaseDep, "a note"],
        three: FromQuery[str] = "3",
    ) -> list[str]:
        return [one.name, reports.name, two.name, three]

    app = Litestar([handler], plugins=[*PLUGINS])
    assert await ask(app, "/") == ["default", "reports", "default", "3"]


@pytest.mark.filterwarnings("ignore:.*Inferred dependency")
async def test_without_litestars_mark_too() -> None:
    """Litestar 2 injects what is only named; the import may be one for type checking alone."""

    @get("/")
    async def handler(one: Database, db_session: Any) -> list[Any]:
        return [one.name, await db_session.scalar(text("select 1"))]

    assert await ask(Litestar([handler], plugins=[*PLUGINS]), "/") == ["default", 1]


async def test_a_parameter_of_the_same_name_and_another_type_stays_what_it_is() -> None:
    @get("/one")
    async def one(db: DatabaseDep) -> str:
        return db.name

    @get("/two")
    async def two(db: FromQuery[str]) -> str:
        return db

    app = Litestar([one, two], plugins=[*PLUGINS])
    async with running(app), client(app) as http:
        assert (await http.get("/one")).text == "default"
        assert (await http.get("/two?db=mine")).text == "mine"


async def test_into_routers_and_controllers() -> None:
    class Papers(Controller):
        path = "/papers"

        @get("/")
        async def index(self, db: DatabaseDep) -> str:
            return db.name

    @get("/")
    async def inner(reports: DatabaseDep) -> str:
        return reports.name

    @asgi("/mounted", copy_scope=True)
    async def mounted(scope: Scope, receive: Receive, send: Send) -> None: ...

    routes: list[Any] = [Papers, Router("/router", route_handlers=[inner, Papers, mounted])]
    app = Litestar(routes, plugins=[*PLUGINS])
    async with running(app), client(app) as http:
        assert (await http.get("/papers")).text == "default"
        assert (await http.get("/router")).text == "reports"
        assert (await http.get("/router/papers")).text == "default"


async def test_into_dependencies() -> None:
    async def job(db: DatabaseDep) -> str:
        return f"a job for {db.name}"

    def other_job(reports: DatabaseDep) -> str:
        return f"another for {reports.name}"

    @get("/", dependencies={"third": Provide(functools.partial(other_job), sync_to_thread=False)})
    async def handler(first: NamedDependency[str], third: NamedDependency[str]) -> list[str]:
        return [first, third]

    app = Litestar([handler], dependencies={"first": job}, plugins=[*PLUGINS])
    assert await ask(app, "/") == ["a job for default", "another for reports"]


async def test_into_websocket_listeners() -> None:
    @websocket_listener("/")
    async def listen(data: str, db: DatabaseDep, db_read_session: ReadSessionDep) -> str:
        return f"{data} {db.name} {await db_read_session.scalar(text('select 1'))}"

    app = Litestar([listen], plugins=[*PLUGINS])
    async with running(app):
        socket = WebSocketClient(app, "/")
        assert (await socket.receive())["type"] == "websocket.accept"
        await socket.send("hello")
        assert (await socket.receive())["text"] == "hello default 1"
        await socket.leave()
        await socket.ended()


async def test_what_is_neither_handler_nor_controller_is_left_alone() -> None:
    class Listener(WebsocketListener):
        path = "/"

        async def on_receive(self, data: str, db_read_session: ReadSessionDep) -> str:
            return f"{data} {await db_read_session.scalar(text('select 1'))}"

    app = Litestar([Listener], plugins=[*PLUGINS])
    async with running(app):
        socket = WebSocketClient(app, "/")
        assert (await socket.receive())["type"] == "websocket.accept"
        await socket.send("hello")
        assert (await socket.receive())["text"] == "hello 1"
        await socket.leave()
        await socket.ended()


async def test_what_the_application_provides_itself_stays_its_own() -> None:
    @get("/", dependencies={"db": Provide(lambda: "mine", sync_to_thread=False)})
    async def handler(db: Annotated[Any, "mine"], db_session: SessionDep) -> str:
        return str(db)

    @get("/two", dependencies={"two": Provide(lambda: PLUGINS[1].database, sync_to_thread=False)})
    async def second(two: DatabaseDep) -> str:
        return two.name

    app = Litestar([handler, second], plugins=[*PLUGINS])
    async with running(app), client(app) as http:
        assert (await http.get("/")).text == "mine"
        assert (await http.get("/two")).text == "reports"


async def test_annotations_that_cannot_be_resolved_here_are_left_to_litestar() -> None:
    def provide() -> str:
        return "resolved"

    @get("/", dependencies={"strange": Provide(provide, sync_to_thread=False)})
    async def handler(strange: NamedDependency[Elsewhere]) -> str:  # type: ignore[name-defined] # noqa: F821
        return str(strange)

    app = Litestar([handler], plugins=[*PLUGINS], signature_namespace={"Elsewhere": str})
    async with running(app), client(app) as http:
        assert (await http.get("/")).text == "resolved"


async def test_dependencies_that_are_resolved_at_once_share_a_read_session() -> None:
    async def one(db_read_session: ReadSessionDep) -> Any:
        return await db_read_session.scalar(text("select 1"))

    async def two(db_read_session: ReadSessionDep) -> Any:
        return await db_read_session.scalar(text("select 2"))

    @get("/", dependencies={"a": Provide(one), "b": Provide(two)})
    async def handler(a: NamedDependency[int], b: NamedDependency[int]) -> list[int]:
        return [a, b]

    app = Litestar([handler], plugins=[PLUGINS[0]])
    assert await ask(app, "/") == [1, 2]
