"""What every framework adapter needs and no framework is needed for.

An adapter (`litestar/`, `starlette/`, `fastapi.py`) translates these parts into its framework's terms:

1. `asgi.UnitOfWorkMiddleware` around everything else of the application, and with
   `commit="autocommit"` `commit_middleware.CommitMiddleware` inside of everything else. The adapter names the
   handler of a scope, and answers a failed COMMIT by the application's exception handlers.
2. `running()` while the application runs, in a loop that may not be the only one; `on_sigterm()`,
   `reporting()` and `frozen()` beside it; then `check_at_start()`.
3. The routes of `endpoints.routes.routes_below()`, outside of the application's own middleware.
4. A default exception handler of `SQLAlchemyError`: `sqlstate.answer_for()` and `answer_log.log_answer()`.
5. `get_session()` and `get_read_session()`: `asgi.unit_of()`.

The contract's applications (`tests/contract/apps/`) show what it must then pass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

from reviewpoint_db import checks, default
from reviewpoint_db.endpoints.live import serving
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.pending import PendingMigrations
from reviewpoint_db.settings import refuse

if TYPE_CHECKING:
    from reviewpoint_db.database import Database
    from reviewpoint_db.migrations import Migrations

__all__ = ["check_at_start", "checked_guards", "checked_path", "refuse_shared", "running"]


class _Installed(Protocol):
    """One database in one application; its text names it in an error."""

    @property
    def database(self) -> Database: ...

    @property
    def path(self) -> str | None: ...


@asynccontextmanager
async def running(database: Database, *, observed: bool) -> AsyncIterator[None]:
    """Start a database, as the process-wide default one where it is that, and stop it at the end.

    Args:
        database: The database.
        observed: Whether its live page is served; its other processes on this host then ask this one.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(default.use(database))
        await stack.enter_async_context(database)
        if observed:
            await stack.enter_async_context(serving(database))
        yield


async def check_at_start(
    database: Database, migrations: Migrations | None, *, guarded: bool
) -> None:
    """Log what is wrong with the set-up, and have health look for pending migrations from now on.

    Args:
        database: The database, started.
        migrations: Where its migrations are, if they are to be checked.
        guarded: Whether guards or a token stand before the debug routes.
    """
    if migrations is not None and migrations.present():
        database.pending = PendingMigrations(migrations.state_of)
    await checks.check_at_start(database, migrations=migrations, guarded=guarded)


def checked_guards(guards: object, *, also: type | None = None) -> tuple[Any, ...]:
    """Return the guards.

    Args:
        guards: As the application gave them.
        also: A framework's own kind, which need not be callable.

    Raises:
        ConfigurationError: They are no list, or something in it is not callable.
    """
    if guards is None:
        return ()
    kind = type(guards).__name__
    if isinstance(guards, str) or not isinstance(guards, Iterable):
        raise refuse("guards", f"a {kind}", "not a list", "give a list: guards=[...]")
    given = tuple(cast("Iterable[object]", guards))
    for guard in given:
        if not callable(guard) and (also is None or not isinstance(guard, also)):
            shown = f"a {kind} with a {type(guard).__name__}"
            raise refuse("guards", shown, "not callable", "give a list of functions")
    return given


def checked_path(path: object) -> str:
    """Return where the routes are, without the slash at its end.

    Raises:
        ConfigurationError: It is no path, or a template.
    """
    if not isinstance(path, str) or not path.startswith("/") or "{" in path:
        msg = f"path={path!r} is no place for routes: give one like '/db', or None for no routes."
        raise ConfigurationError(msg)
    return path.rstrip("/")


def refuse_shared(one: _Installed, other: _Installed, *, session_keys: bool = False) -> None:
    """Refuse two databases of one application that have in common what only one can have.

    Args:
        one: One of them.
        other: The other.
        session_keys: Whether the handlers' names of their sessions collide.

    Raises:
        ConfigurationError: Names both, and the way out.
    """
    for what, shared, remedy in (
        ("name", one.database.name == other.database.name, "DatabaseConfig(name=...)"),
        ("path", one.path is not None and one.path == other.path, "path=..."),
        ("session key", session_keys, "session_key=... and read_session_key=..."),
    ):
        if shared:
            msg = (
                f"Two databases of one application have the same {what}: {one} and {other}; "
                f"give one of them another by {remedy}."
            )
            raise ConfigurationError(msg)
