"""What handlers get by asking for it: sessions by their keys, a `Database` by its annotation.

Dependencies here take `scope` and nothing else: Litestar copies the application's state for each
request that has it injected, which costs more than the whole unit of work.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_origin, get_type_hints

from litestar import Controller, Router
from litestar.di import NamedDependency, Provide
from litestar.handlers import BaseRouteHandler, WebsocketListenerRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import Scope
from litestar.utils.predicates import is_class_and_subclass
from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db.asgi import unit_of
from reviewpoint_db.database import Database

if TYPE_CHECKING:
    from litestar.config.app import AppConfig

__all__ = (
    "DatabaseDep",
    "ReadSessionDep",
    "SessionDep",
    "inject_databases",
    "provide_read_session",
    "provide_session",
)

# Litestar 3 will inject only what says so, and 2.25 already warns of what does not.
SessionDep = NamedDependency[AsyncSession]
"""The request's session, under its key: `async def handler(db_session: SessionDep)`."""

ReadSessionDep = NamedDependency[AsyncSession]
"""The request's read session, under its key: `db_read_session: ReadSessionDep`."""

DatabaseDep = NamedDependency[Database]
"""A `Database`, under any name; under the name of a database, that one."""

_NAMES: Final[dict[str, Any]] = {"Database": Database, "NamedDependency": NamedDependency}


def provide_session(name: str) -> Provide:
    """Provide the session of the request's unit of work on the database of this name."""

    def session(scope: Scope) -> AsyncSession:
        return unit_of(cast("Any", scope), name).session

    return Provide(session, sync_to_thread=False)


def provide_read_session(name: str) -> Provide:
    """Provide the read session of the request's unit of work on the database of this name."""

    def read_session(scope: Scope) -> AsyncSession:
        return unit_of(cast("Any", scope), name).read_session

    return Provide(read_session, sync_to_thread=False)


def inject_databases(app_config: AppConfig, default: str) -> None:
    """Have each parameter that is annotated `Database` filled in, whatever its name.

    Litestar injects by name, so every handler gets a dependency under the names that it uses
    itself: an application-wide one would also take parameters of the same name and another type.
    A parameter named like a database gets that one, any other gets the default one.

    Args:
        app_config: The application that is being made.
        default: The name of the database for all parameters that name none.
    """
    owners = list(_owners(app_config.route_handlers))
    for owner in owners:
        if isinstance(owner, BaseRouteHandler):
            _add(owner, _asked_by_handler(owner), default)
    dependencies = [app_config.dependencies, *(owner.dependencies or {} for owner in owners)]
    for provider in [provider for layer in dependencies for provider in layer.values()]:
        # A dependency may be asked for anywhere below its layer, so what it needs goes to the top.
        _add(app_config, _asked_by_function(_function_of(provider)), default)


def _owners(values: Iterable[Any]) -> Iterator[Any]:
    """All that can have dependencies: handlers, routers, and controllers with their handlers."""
    for value in values:
        if isinstance(value, BaseRouteHandler):
            yield value
        elif isinstance(value, Router):
            yield value
            for route in value.routes:
                if isinstance(route, HTTPRoute):
                    yield from route.route_handlers
                else:
                    yield route.route_handler
        elif is_class_and_subclass(value, Controller):
            # Litestar makes its handlers from the class at registration; what is added to the
            # class's own handlers here holds no state, and so does not tie it to this application.
            yield from (
                attribute
                for name in dir(value)
                if isinstance(attribute := getattr(value, name, None), BaseRouteHandler)
            )


def _add(owner: Any, names: Iterable[str], default: str) -> None:
    known: Mapping[str, Any] = owner.dependencies or {}
    missing = {name: _provide_database(name, default) for name in names if name not in known}
    if missing:
        owner.dependencies = {**known, **missing}


def _provide_database(name: str, default: str) -> Provide:
    def database(scope: Scope) -> Database:
        databases: dict[str, Database] = scope["litestar_app"].state.databases
        return databases.get(name) or databases[default]

    return Provide(database, sync_to_thread=False)


def _asked_by_handler(handler: BaseRouteHandler) -> list[str]:
    if isinstance(handler, WebsocketListenerRouteHandler):
        # Its function is Litestar's own wrapper; what the listener asks for was parsed before.
        parameters = handler.parsed_fn_signature.parameters
        return [name for name, field in parameters.items() if _is_database(field.raw, {})]
    return _asked_by_function(handler.fn)


def _function_of(provider: Any) -> Callable[..., Any]:
    return provider.dependency if isinstance(provider, Provide) else provider


def _asked_by_function(function: Callable[..., Any]) -> list[str]:
    """The parameters that are annotated `Database`; annotations may be texts."""
    function = inspect.unwrap(getattr(function, "func", function))
    names = getattr(function, "__globals__", {})
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if _is_database(parameter.annotation, names)
    ]


def _is_database(annotation: Any, names: Mapping[str, Any]) -> bool:
    if isinstance(annotation, str):
        holder = SimpleNamespace(__annotations__={"it": annotation})
        try:
            # Imported for type checking alone, `Database` is not among the names; Litestar then
            # finds ours.
            annotation = get_type_hints(holder, {**_NAMES, **names}, include_extras=True)["it"]
        except (AttributeError, NameError, SyntaxError, TypeError):
            return False  # Litestar finds it by other means, or has its own words for the error
    if get_origin(annotation) is Annotated:
        annotation = annotation.__origin__
    return annotation is Database
