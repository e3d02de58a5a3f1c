"""Passwords that change: asked for at each connect, within a bound, and never shown."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Final

from reviewpoint_db.errors import DatabaseUnavailableError, ReviewPointDBError
from reviewpoint_db.forks import on_fork
from reviewpoint_db.settings import UrlOfFile, refuse
from reviewpoint_db.urls import split_url

__all__ = ["Password", "PasswordSource", "password_of_file"]

PasswordSource = Callable[[], str | Awaitable[str]]
"""What `DatabaseConfig.password` may be: a function or a coroutine function."""

#: Of connect_timeout: the rest is for the login.
_SHARE: Final = 0.8
#: Calls that have not returned although nobody waits for them any more: then no other is made.
_MOST_HANGING: Final = 10


class Password:
    """A password's function as the driver asks it, for every new connection.

    A plain function runs in a thread of its own: it may read a file or ask a service without
    holding the event loop up.

    Args:
        source: The function; it may be a coroutine function.
        connect_timeout: Seconds, of which it gets four fifths.
    """

    def __init__(self, source: PasswordSource, connect_timeout: float) -> None:
        self.source = source
        self.timeout = connect_timeout * _SHARE
        self.forget_parent()
        on_fork(self)

    def forget_parent(self) -> None:
        """Begin in a forked child, where no call is under way."""
        self._lock = threading.Lock()
        self._hanging = 0

    def __repr__(self) -> str:
        return "Password(***)"

    async def __call__(self) -> str:
        """Ask for the password.

        Raises:
            DatabaseUnavailableError: The function raised, gave no password, or took too long.
        """
        problem: str
        orig: BaseException | None = None
        try:
            if self._hanging >= _MOST_HANGING:
                raise TimeoutError  # as if it hung too: each would cost a thread
            async with asyncio.timeout(self.timeout):
                password: object = await self._ask()
            if isinstance(password, str) and password:
                return password
            problem = (
                f"gave {'an empty text' if password == '' else f'a {type(password).__name__}'}"
            )
        except TimeoutError as error:
            problem, orig = f"gave no answer within {self.timeout:g} s", error
        except Exception as error:  # noqa: BLE001 - whatever it raises is told by name
            problem, orig = _told(error)
        # Only an error of the operating system or network says that it may pass; see `sqlstate`.
        raise DatabaseUnavailableError(
            f"password = ***: the function {problem}. "
            "Fix: have it return the password as a str, in time.",
            orig=orig,
        ) from None

    async def _ask(self) -> object:
        if inspect.iscoroutinefunction(self.source):
            return await self.source()
        answer = await self._in_thread()
        # A partial or a method may still have made a coroutine.
        return await answer if inspect.isawaitable(answer) else answer

    async def _in_thread(self) -> Any:
        """Ask in a daemon thread: one that hangs holds up no pool of threads, and no exit."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        call = _Call(self.source)

        def settle() -> None:
            if not answer.done():  # else nobody waits any more
                call.settle(answer)

        def run() -> None:
            call.run()
            with self._lock:
                self._hanging -= call.given_up
                call.returned = True
            with contextlib.suppress(RuntimeError):  # the loop is closed by now
                loop.call_soon_threadsafe(settle)

        threading.Thread(target=run, name="reviewpoint_db password", daemon=True).start()
        try:
            return await answer
        finally:
            with self._lock:
                call.given_up = not call.returned
                self._hanging += call.given_up


class _Call:
    """One call of a password's function, in the context of whoever asks for it."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._context = contextvars.copy_context()
        self._result: Any = None
        self._error: Exception | None = None
        self.returned = False
        self.given_up = False

    def run(self) -> None:
        """Call it, and keep what comes of it."""
        try:
            self._result = self._context.run(self._function)
        except Exception as error:  # noqa: BLE001 - handed to the loop
            self._error = error

    def settle(self, answer: asyncio.Future[Any]) -> None:
        """Hand over what came of it."""
        if self._error is None:
            answer.set_result(self._result)
        else:
            answer.set_exception(self._error)


def _told(error: Exception) -> tuple[str, BaseException | None]:
    """What a function's exception is, without its text, and what makes it one that may pass."""
    if isinstance(error, ReviewPointDBError):  # our own reading of a file, which is being replaced
        return f"failed ({error})", OSError("the file cannot be read")
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].name}, line {frames[-1].lineno}" if frames else ""
    return (
        f"raised {type(error).__name__}{place}",
        OSError(type(error).__name__) if isinstance(error, OSError) else None,
    )


def password_of_file(url: object) -> Callable[[], str] | None:
    """Return what reads the password of a URL's file anew; None for a URL from elsewhere."""
    if not isinstance(url, UrlOfFile):
        return None

    def read() -> str:
        parts = split_url(url.reread())
        password = parts and (parts.password or parts.parameter("password"))
        if not password:
            raise refuse(url.variable, "***", "its URL has no password any more", "write one")
        return password

    return read
