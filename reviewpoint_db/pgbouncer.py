"""PgBouncer before PostgreSQL: noticed at the login, and spoken to as its transaction mode needs it.

In that mode two transactions of one connection run on different server connections, so nothing may
be expected of the server that an earlier transaction left there, prepared statements least of all.

A login through it shows for nothing that it is there: the process id, which PgBouncer invents, and
the client encoding, which it repeats as asyncpg spelled it. Only then is the server asked, once,
whether its process is another; from then on every connection of the engine is opened accordingly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from loguru import logger
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from reviewpoint_db.backend import REPLICA
from reviewpoint_db.driver_errors import code_of
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.redaction import safe_error

__all__ = ["NOT_AVAILABLE", "Login", "answers", "listen_for"]

#: What the pages say where they would name who holds which connection.
NOT_AVAILABLE: Final = (
    "PgBouncer is in between: which request holds which of the server's connections is not "
    "available behind PgBouncer."
)

#: Linux gives no process a higher number; PgBouncer draws from 32 bits, with a sign.
_HIGHEST_PID: Final = 2**22

#: Nothing is prepared that a later transaction would need. asyncpg sends a statement without a name
#: together with its values then, so that no other server connection can come in between.
_SAFE: Final[dict[str, Any]] = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}

#: Startup parameters that this package asks for by itself; they are for a server's own socket.
_OURS: Final = ("client_connection_check_interval", "tcp_")
#: And for a replica, which refuses to write by itself.
_OURS_OF_REPLICA: Final = (*_OURS, "default_transaction_read_only")


def answers(engine: AsyncEngine) -> bool:
    """Whether PgBouncer answers an engine's logins, declared or as far as was noticed."""
    login = getattr(engine.sync_engine.dialect.connect, "__self__", None)
    return isinstance(login, Login) and login.certain


def listen_for(engine: AsyncEngine, declared: bool | None) -> Login | None:
    """Open the engine's connections as PgBouncer needs them, where there is one.

    Args:
        engine: Nothing of it has connected yet.
        declared: Whether there is one; None to find out.

    Returns:
        What the engine learns of who answers it; None where it does not look.
    """
    if declared is False:
        return None
    dialect = engine.sync_engine.dialect
    ours = _OURS_OF_REPLICA if vars(dialect).get(REPLICA) else _OURS
    login = Login(dialect.connect, certain=declared is True, ours=ours)
    # Not by the event do_connect: who listens to it after us would never be asked.
    dialect.connect = login.connect  # type: ignore[method-assign]
    return login


class Login:
    """How one engine logs in, and what it has learned about what answers.

    Args:
        connect: The dialect's own way.
        certain: Whether PgBouncer is known to answer.
        ours: How the names of startup parameters begin that PgBouncer is not asked for.
    """

    def __init__(
        self, connect: Callable[..., Any], *, certain: bool, ours: tuple[str, ...] = _OURS
    ) -> None:
        self.certain = certain
        self._connect = connect
        self._ours = ours

    def connect(self, *arguments: Any, **options: Any) -> Any:
        """Open a connection in the place of the dialect, in SQLAlchemy's greenlet."""
        try:
            connection = None if self.certain else self._try(arguments, options)
            return connection or self._connect_safely(arguments, options)
        except Exception as error:
            if code_of(error) == "08P01" and "authentication failed" in str(error):
                # PgBouncer has one code for all: by that one, the server would be back later.
                from asyncpg import InvalidPasswordError

                raise InvalidPasswordError(str(error)) from None
            raise

    def _try(self, arguments: Any, options: dict[str, Any]) -> Any:
        """Log in as to a server; None when it was PgBouncer that answered."""
        try:
            connection = self._connect(*arguments, **options)
        except Exception as error:
            if not _is_refusal(error):
                raise
            self._found(safe_error(error))
            return None
        return None if self._look(connection.driver_connection) else connection

    def _look(self, driver: Any) -> bool:
        """Whether PgBouncer answered; the connection is cut then, since it prepares statements."""
        if not _hints(driver):
            return False
        try:
            answer = await_only(_is_another(driver))
        except BaseException:
            driver.terminate()
            raise
        if not answer:
            return False
        driver.terminate()
        self._found("the server's process is another than the login named")
        return True

    def _connect_safely(self, arguments: Any, options: dict[str, Any]) -> Any:
        settings = options.get("server_settings", {})
        kept = {name: value for name, value in settings.items() if not name.startswith(self._ours)}
        safe = {
            **options,
            **_SAFE,
            "prepared_statement_name_func": _no_name,
            "server_settings": kept,
        }
        try:
            return self._connect(*arguments, **safe)
        except Exception as error:
            if not _is_refusal(error):
                raise
            raise ConfigurationError(
                f"PgBouncer refuses a parameter of the URL ({safe_error(error)}). Fix: take it out "
                "and say it by ALTER ROLE ... SET, or let PgBouncer ignore it "
                "(ignore_startup_parameters)."
            ) from None  # whose code is that of a server which will be back

    def _found(self, why: str) -> None:
        if not self.certain:
            self.certain = True
            logger.info(
                "PgBouncer answers ({}): statements are not prepared any more. pgbouncer=True says so "
                "beforehand, False keeps what session mode allows",
                why,
            )


async def _is_another(driver: Any) -> bool:
    """Ask the server whether its process is another than the login named: one round trip."""
    # Without parameters it is one message, which prepares nothing; its rows are counted only.
    count = await driver.execute(f"SELECT WHERE pg_backend_pid() = {int(driver.get_server_pid())}")
    return bool(count == "SELECT 0")


def _hints(driver: Any) -> bool:
    """Whether the login looks like PgBouncer's. No I/O."""
    told = str(driver.get_settings().client_encoding)
    return not 0 < driver.get_server_pid() <= _HIGHEST_PID or told.startswith("'")


def _is_refusal(error: BaseException) -> bool:
    """Whether PgBouncer refused the login for a setting that it cannot keep."""
    return code_of(error) == "08P01" and "startup parameter" in str(error)


def _no_name() -> str:
    return ""
