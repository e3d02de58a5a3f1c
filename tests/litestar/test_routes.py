"""The routes below `/db` in a Litestar application: whole by themselves, seen by who may see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from litestar import Litestar, Request, Response, get
from litestar.config.compression import CompressionConfig
from litestar.config.cors import CORSConfig
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.middleware.base import DefineMiddleware

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.endpoints.routes import ROUTES
from reviewpoint_db.litestar import ReviewPointDBPlugin, SessionDep, get_session
from tests.support.asgi import client, running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litestar.connection import ASGIConnection
    from litestar.handlers import BaseRouteHandler
    from litestar.types import ASGIApp, Guard, Receive, Scope, Send

PUBLIC = ("/db/health", "/db/health/live", "/db/health/ready")
MEMORY = "sqlite:///:memory:"


def refuse(_: ASGIConnection[Any, Any, Any, Any], __: BaseRouteHandler) -> None:
    raise NotAuthorizedException


class Authentication(AbstractAuthenticationMiddleware):
    """Knows who asks by a header, and refuses those who do not say."""

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        name = connection.headers.get("x-user")
        if name is None:
            raise NotAuthorizedException
        return AuthenticationResult(user=name, auth=None)


def be_ann(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    if connection.user != "ann":
        raise PermissionDeniedException


def plugin(
    *, guards: Sequence[Guard] | None = None, environment: Any = None, **settings: Any
) -> ReviewPointDBPlugin:
    config = DatabaseConfig(url=MEMORY, environment=environment)
    return ReviewPointDBPlugin(config, guards=guards, **settings)


async def test_who_asks_by_head_gets_the_status_of_get() -> None:
    """As monitors do."""
    app = Litestar([], plugins=[plugin()])
    async with running(app), client(app) as http:
        for route in ROUTES:
            path = f"/db{route.path}"
            assert (await http.head(path)).status_code == (await http.get(path)).status_code == 200


async def test_nothing_of_the_application_applies_to_them() -> None:
    class Broken:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise LookupError

    def before(_: Request[Any, Any, Any]) -> None:
        raise LookupError

    def after(_: Response[Any]) -> Response[Any]:
        raise LookupError

    async def afterwards(_: Request[Any, Any, Any]) -> None:
        raise LookupError

    app = Litestar(
        [],
        plugins=[plugin()],
        guards=[refuse],
        middleware=[Authentication, Broken],
        before_request=before,
        after_request=after,
        after_response=afterwards,
        response_headers={"x-application": "yes"},
        cors_config=CORSConfig(allow_origins=["https://example.org"]),
        compression_config=CompressionConfig(backend="gzip", minimum_size=1),
    )
    async with running(app), client(app, headers={"origin": "https://example.org"}) as http:
        for path in (*PUBLIC, "/db/debug"):
            response = await http.get(path)
            assert (path, response.status_code) == (path, 200)
            assert "x-application" not in response.headers
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["access-control-allow-origin"] == "https://example.org"


async def test_they_stay_out_of_the_schema_unless_asked_in() -> None:
    @get("/mine")
    async def mine() -> None: ...

    app = Litestar([mine], plugins=[plugin()])
    assert list(app.openapi_schema.paths or {}) == ["/mine"]
    app = Litestar([mine], plugins=[plugin(include_in_schema=True)], include_in_schema=False)
    ours = {f"/db{route.path}".rstrip("/") for route in ROUTES}
    assert set(app.openapi_schema.paths or {}) == ours
    assert {"/db", "/db/debug", "/db/debug/live", *PUBLIC} <= ours


async def test_health_has_details_only_where_debug_is_allowed() -> None:
    for environment, details in (("dev", True), ("prod", False)):
        app = Litestar([], plugins=[plugin(environment=environment)])
        async with running(app), client(app) as http:
            assert ("pool" in (await http.get("/db/health")).json()) is details
            ietf = await http.get("/db/health", headers={"accept": "application/health+json"})
            assert ietf.headers["content-type"] == "application/health+json"
            assert ietf.json()["status"] == "pass"


async def test_debug_is_not_there_in_prod() -> None:
    app = Litestar([], plugins=[plugin(environment="prod")])
    async with running(app), client(app) as http:
        for path in ("/db", "/db/", "/db/debug", "/db/debug/live"):
            assert (await http.get(path)).status_code == 404
        assert (await http.get("/db/health")).status_code == 200


async def test_debug_in_prod_by_a_token() -> None:
    app = Litestar([], plugins=[plugin(environment="prod", debug_token="s3cret")])
    async with running(app), client(app) as http:
        refused = await http.get("/db/debug")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        bearer = {"authorization": "Bearer s3cret"}
        assert (await http.get("/db/debug", headers=bearer)).json()["name"] == "default"
        assert (await http.get("/db/debug", auth=("anyone", "s3cret"))).status_code == 200


async def test_debug_in_prod_by_the_applications_guards() -> None:
    """They know who asks, since the application's own middleware runs before them."""
    app = Litestar(
        [],
        plugins=[plugin(environment="prod", guards=[be_ann])],
        middleware=[DefineMiddleware(Authentication)],
    )
    async with running(app), client(app) as http:
        assert (await http.get("/db/health")).status_code == 200
        assert (await http.get("/db/debug")).status_code == 401
        assert (await http.get("/db/debug", headers={"x-user": "bob"})).status_code == 403
        ann = await http.get("/db/debug", headers={"x-user": "ann"})
        assert ann.json()["name"] == "default"


async def test_a_guard_may_ask_the_database() -> None:
    async def know(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        from sqlalchemy import text

        if await get_session(connection).scalar(text("select 1")) != 1:
            raise NotAuthorizedException

    @get("/", guards=[know])
    async def mine(db_session: SessionDep) -> bool:
        return db_session.in_transaction()

    app = Litestar([mine], plugins=[plugin(environment="prod", guards=[know])])
    async with running(app), client(app) as http:
        assert (await http.get("/")).text == "true"
        assert (await http.get("/db/debug")).json()["pool_checked_out"] == 1
        assert (await http.get("/db/debug")).json()["pool_checked_out"] == 1


async def test_the_page_is_there_with_and_without_a_slash_but_never_at_the_root() -> None:
    @get("/")
    async def mine() -> str:
        return "mine"

    app = Litestar([mine], plugins=[plugin()])
    async with running(app), client(app) as http:
        for path in ("/db", "/db/"):
            page = await http.get(path)
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert "script-src 'sha256-" in page.headers["content-security-policy"]
        assert (await http.get("/db/debug/live")).json()["name"] == "default"
    app = Litestar([mine], plugins=[plugin(path="/")])
    async with running(app), client(app) as http:
        assert (await http.get("/")).text == "mine"
        assert (await http.get("/debug/live")).json()["name"] == "default"


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_they_only_answer(method: str) -> None:
    app = Litestar([], plugins=[plugin()])
    async with running(app), client(app) as http:
        assert (await http.request(method, "/db/health")).status_code == 405
