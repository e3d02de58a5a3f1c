"""A function of the caller's that is both an async context manager and a FastAPI dependency.

`contextlib.asynccontextmanager` gives the first and breaks the second: FastAPI unwraps it, finds an
async generator function, wraps it again, and every request ends in a `TypeError`. FastAPI decides
by `inspect` on the object and on its `__call__` *attribute*, and then calls the object itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

__all__ = ("Scope", "ScopeFactory")

T = TypeVar("T")


class Scope(AsyncGenerator[T, None]):
    """One use of a `ScopeFactory`: enter it with `async with`, or let a framework iterate it.

    Args:
        managed: Makes the generator behind `async with`.
        injected: Makes the generator behind iteration, which is how a framework injects.
    """

    __slots__ = ("_injected", "_injecting", "_managed", "_manager")

    def __init__(
        self,
        managed: Callable[[], AsyncGenerator[T, None]],
        injected: Callable[[], AsyncGenerator[T, None]],
    ) -> None:
        self._managed = managed
        self._injected = injected
        self._manager: AbstractAsyncContextManager[T] | None = None
        self._injecting: AsyncGenerator[T, None] | None = None

    async def __aenter__(self) -> T:
        self._manager = asynccontextmanager(self._managed)()
        return await self._manager.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._manager is None:
            msg = "This scope was never entered: use it as `async with`."
            raise RuntimeError(msg)
        return await self._manager.__aexit__(kind, error, traceback)

    def _generator(self) -> AsyncGenerator[T, None]:
        if self._injecting is None:
            self._injecting = self._injected()
        return self._injecting

    async def asend(self, value: None) -> T:
        """Go on to the next yield, as an async generator does."""
        return await self._generator().asend(value)

    async def athrow(self, *error: Any) -> T:
        """Raise an error where the generator stands, as an async generator does."""
        return await self._generator().athrow(*error)

    async def aclose(self) -> None:
        """End the generator where it stands, as an async generator does."""
        await self._generator().aclose()


class ScopeFactory(Generic[T]):
    """What the caller calls, or hands to `Depends`. It takes no parameters.

    Example:
        >>> async def numbers():
        ...     yield 42
        >>> get_number = ScopeFactory("get_number", "Yield a number.", numbers, numbers)
        >>> inspect.isasyncgenfunction(get_number.__call__)
        True

    Args:
        name: What it is called where it is defined.
        doc: Its docstring.
        managed: An async generator function with one yield, for `async with`.
        injected: The same for frameworks.
    """

    def __init__(
        self,
        name: str,
        doc: str,
        managed: Callable[[], AsyncGenerator[T, None]],
        injected: Callable[[], AsyncGenerator[T, None]],
    ) -> None:
        self.__name__ = self.__qualname__ = name
        self.__doc__ = doc
        self._managed = managed
        self._injected = injected
        # Found by `getattr(obj, "__call__")`, never by `obj()`, which looks at the class.
        self.__dict__["__call__"] = injected

    def __call__(self) -> Scope[T]:
        """Return a scope, not entered yet."""
        return Scope(self._managed, self._injected)

    def __repr__(self) -> str:
        return f"<function {self.__name__}>"
