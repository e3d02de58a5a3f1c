"""How a Litestar application answers database errors, with and without handlers of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from advanced_alchemy.exceptions import IntegrityError as RepositoryIntegrityError
from advanced_alchemy.exceptions import NotFoundError, RepositoryError
from advanced_alchemy.extensions.litestar.exception_handler import exception_to_http_response
from litestar import Litestar, MediaType, Request, Response, Router, get, post
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.errors import CommitOutcomeUnknownError, PoolTimeoutError
from reviewpoint_db.litestar import ReviewPointDBPlugin, SessionDep
from tests.support.asgi import client, running
from tests.support.notes import held, metadata, stored, write, write_orphan

if TYPE_CHECKING:
    from litestar.types import ExceptionHandlersMap

SECRET = "s3cret-value"


@post("/twice")
async def twice(db_session: SessionDep) -> None:
    await write(db_session, SECRET)
    await write(db_session, SECRET)


@post("/orphan")
async def orphan(db_session: SessionDep) -> None:
    await write_orphan(db_session, SECRET)


@post("/orphan-committed")
async def orphan_committed(db_session: SessionDep) -> None:
    await write_orphan(db_session, SECRET)
    await db_session.commit()


@get("/missing", media_type=MediaType.TEXT)
async def missing(db_session: SessionDep) -> str:
    await db_session.execute(text("select * from papyri where title = :t"), {"t": SECRET})
    raise AssertionError


@get("/unknown")
async def unknown() -> None:
    raise CommitOutcomeUnknownError("The connection was lost during COMMIT")


@get("/exhausted")
async def exhausted() -> None:
    raise PoolTimeoutError("held by others")


HANDLERS = [twice, orphan, orphan_committed, missing, unknown, exhausted]


def make(url: str, handlers: ExceptionHandlersMap | None = None, **settings: Any) -> Litestar:
    plugin = ReviewPointDBPlugin(
        DatabaseConfig(url=url, retry_after=2.4),
        commit="autocommit",
        metadata=metadata,
        create_all=True,
    )
    return Litestar(HANDLERS, plugins=[plugin], exception_handlers=handlers, **settings)


async def ask(app: Litestar, method: str, path: str) -> Any:
    async with running(app), client(app) as http:
        return await http.request(method, path, headers={"origin": "https://example.org"})


@pytest.mark.parametrize("path", ["/twice", "/orphan", "/orphan-committed"])
async def test_a_violation_is_409_at_flush_and_at_commit_alike(
    database_url: str, path: str, lines: list[str]
) -> None:
    app = make(database_url)
    async with running(app), client(app) as http:
        response = await http.post(path)
        assert response.status_code == 409
        assert response.json() == {
            "status_code": 409,
            "detail": "The change conflicts with existing data.",
        }
        assert await stored(app.state.databases["default"]) == []
        assert held(app.state.databases["default"]) == 0
    about = [line for line in lines if "POST" in line]
    assert len(about) == 1
    assert SECRET not in "".join(lines)


async def test_what_may_pass_is_503_with_retry_after(sqlite_url: str, lines: list[str]) -> None:
    response = await ask(make(sqlite_url), "GET", "/exhausted")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "3"
    assert response.json()["status_code"] == 503
    assert any(line.startswith("WARNING|GET /exhausted") for line in lines)


async def test_of_several_databases_the_longest_wait_is_told(sqlite_url: str) -> None:
    configs = [
        DatabaseConfig(url=sqlite_url, name=name, retry_after=seconds)
        for name, seconds in (("default", 1.0), ("mails", 6.1))
    ]
    plugins = [
        ReviewPointDBPlugin(
            config,
            path=f"/{config.name}",
            session_key=f"{config.name}_session",
            read_session_key=f"{config.name}_read_session",
        )
        for config in configs
    ]
    app = Litestar([exhausted], plugins=plugins)
    assert (await ask(app, "GET", "/exhausted")).headers["retry-after"] == "7"


async def test_a_database_that_is_down_is_503() -> None:
    @get("/")
    async def handler(db_session: SessionDep) -> None:
        await db_session.execute(text("select 1"))

    config = DatabaseConfig(
        url="postgresql://ann:s3cret@127.0.0.1:1/papers", pool=PoolConfig(timeout=0.2)
    )
    app = Litestar([handler], plugins=[ReviewPointDBPlugin(config)])
    response = await ask(app, "GET", "/")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "s3cret" not in response.text


async def test_a_commit_of_unknown_outcome_says_so(sqlite_url: str) -> None:
    response = await ask(make(sqlite_url, debug=True), "GET", "/unknown")
    assert response.status_code == 500
    assert "may have been stored" in response.json()["detail"]
    assert "retry-after" not in response.headers


async def test_any_other_error_is_500_and_the_log_names_the_way_out(
    database_url: str, lines: list[str]
) -> None:
    response = await ask(make(database_url), "GET", "/missing")
    assert response.status_code == 500
    assert "Internal Server Error" in response.text
    assert "papyri" not in response.text
    (line,) = [line for line in lines if line.startswith("ERROR|GET /missing")]
    assert "litestar database upgrade" in line
    assert SECRET not in line


async def test_in_debug_mode_any_other_error_shows_litestars_page_without_values(
    database_url: str,
) -> None:
    response = await ask(make(database_url, debug=True), "GET", "/missing")
    assert response.status_code == 500
    assert "papyri" in response.text
    assert SECRET not in response.text


async def test_the_applications_own_handler_answers_and_sees_the_original_error(
    database_url: str,
) -> None:
    """For an error of COMMIT too, with the headers of its middleware and hooks on the answer."""
    seen: list[Any] = []

    def handle(_: Request[Any, Any, Any], error: IntegrityError) -> Response[str]:
        seen.append(error)
        return Response("mine", status_code=422)

    async def after_exception(error: Exception, _: Any) -> None:
        seen.append(error)

    async def before_send(message: Any, _: Any) -> None:
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    app = make(
        database_url,
        {IntegrityError: handle},
        cors_config=CORSConfig(allow_origins=["https://example.org"]),
        after_exception=[after_exception],
        before_send=[before_send],
    )
    for path in ("/orphan", "/twice"):
        seen.clear()
        response = await ask(app, "POST", path)
        assert (response.status_code, response.text) == (422, "mine")
        assert response.headers["access-control-allow-origin"] == "https://example.org"
        error, same, status = seen
        assert isinstance(error, IntegrityError)
        assert error is same
        assert status == 422


async def test_the_handler_of_a_router_answers_for_its_routes(sqlite_url: str) -> None:
    def handle(_: Request[Any, Any, Any], __: SQLAlchemyError) -> Response[str]:
        return Response("the router's", status_code=422)

    router = Router(
        "/router", route_handlers=[orphan], exception_handlers={SQLAlchemyError: handle}
    )
    app = make(sqlite_url)
    app.register(router)
    async with running(app), client(app) as http:
        assert (await http.post("/router/orphan")).text == "the router's"
        assert (await http.post("/orphan")).status_code == 409


@pytest.mark.parametrize("key", [503, HTTPException])
async def test_the_applications_way_to_show_http_errors_is_kept(sqlite_url: str, key: Any) -> None:
    def show(_: Request[Any, Any, Any], error: HTTPException) -> Response[dict[str, Any]]:
        content = {"title": error.detail, "status": error.status_code}
        return Response(content, status_code=error.status_code, headers={"x-mine": "yes"})

    response = await ask(make(sqlite_url, {key: show}), "GET", "/exhausted")
    assert response.status_code == 503
    assert response.json() == {
        "title": "The database is unavailable. Please try again.",
        "status": 503,
    }
    assert (response.headers["x-mine"], response.headers["retry-after"]) == ("yes", "3")


@pytest.mark.parametrize("key", [500, Exception])
@pytest.mark.parametrize("path", ["/missing", "/unknown"])
async def test_the_applications_answer_to_bugs_holds_for_the_databases(
    sqlite_url: str, key: Any, path: str
) -> None:
    def show(_: Request[Any, Any, Any], error: Exception) -> Response[str]:
        return Response(type(error).__module__, status_code=500)

    app = make(sqlite_url, {key: show})
    response = await ask(app, "GET", path)
    assert (response.status_code, response.text.split(".")[0]) == (
        500,
        "sqlalchemy" if path == "/missing" else "reviewpoint_db",
    )
    assert (await ask(app, "POST", "/orphan")).status_code == 409


def test_the_applications_dictionary_is_not_changed(sqlite_url: str) -> None:
    handlers: dict[Any, Any] = {}
    make(sqlite_url, handlers)
    assert SQLAlchemyError not in handlers


class TestRepositoryErrors:
    """Those that a database error caused are told apart by it, the others as they always were."""

    @staticmethod
    async def answer(error: Exception, cause: BaseException | None = None, **settings: Any) -> Any:
        @get("/")
        async def handler() -> None:
            raise error from cause

        plugin = ReviewPointDBPlugin(DatabaseConfig(url="sqlite:///:memory:", retry_after=2))
        return await ask(Litestar([handler], plugins=[plugin], **settings), "GET", "/")

    async def test_not_found(self) -> None:
        response = await self.answer(NotFoundError("No item found"), NotFoundError())
        assert (response.status_code, response.json()["detail"]) == (404, "No item found")

    async def test_a_conflict_without_a_cause(self) -> None:
        response = await self.answer(RepositoryIntegrityError(detail="Taken"))
        assert (response.status_code, response.json()["detail"]) == (409, "Taken")

    async def test_one_that_is_none_of_the_databases(self) -> None:
        response = await self.answer(RepositoryError(detail="of an attribute"), AttributeError())
        assert response.status_code == 500

    async def test_a_conflict_keeps_the_applications_text(self) -> None:
        cause = IntegrityError("INSERT", {"v": SECRET}, Exception(f"Key (v)=({SECRET})"))
        response = await self.answer(RepositoryIntegrityError(detail="Name is taken"), cause)
        assert (response.status_code, response.json()["detail"]) == (409, "Name is taken")

    async def test_a_conflict_does_not_show_the_statement(self) -> None:
        cause = IntegrityError("INSERT", {"v": SECRET}, Exception(f"Key (v)=({SECRET})"))
        error = RepositoryIntegrityError(detail=f"An integrity error occurred: {cause}")
        response = await self.answer(error, cause)
        assert response.status_code == 409
        assert response.json()["detail"] == "The change conflicts with existing data."

    async def test_what_may_pass(self) -> None:
        """advanced-alchemy calls any error of the driver an IntegrityError, a conflict."""
        error = RepositoryIntegrityError(detail="There was an issue processing the statement.")
        response = await self.answer(error, PoolTimeoutError("held by others"))
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")

    @pytest.mark.parametrize("kind", [RepositoryError, RepositoryIntegrityError])
    async def test_the_applications_own_handler_wins(self, kind: type[Exception]) -> None:
        def handle(_: Request[Any, Any, Any], __: RepositoryError) -> Response[str]:
            return Response("mine", status_code=422)

        error = RepositoryIntegrityError(detail="Taken")
        response = await self.answer(error, exception_handlers={kind: handle})
        assert (response.status_code, response.text) == (422, "mine")

    async def test_advanced_alchemys_own_handler_is_ours(self) -> None:
        error = RepositoryIntegrityError(detail="There was an issue processing the statement.")
        response = await self.answer(
            error,
            PoolTimeoutError("held by others"),
            exception_handlers={RepositoryError: exception_to_http_response},
        )
        assert response.status_code == 503
