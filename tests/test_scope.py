"""One callable that is a context manager for people and a dependency for FastAPI."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator

import pytest

from reviewpoint_db.scope import ScopeFactory

seen: list[str]


def factory() -> tuple[ScopeFactory[str], list[str]]:
    seen: list[str] = []

    def generator(name: str):  # type: ignore[no-untyped-def]
        async def generate() -> AsyncGenerator[str, None]:
            seen.append(f"open {name}")
            try:
                yield name
            except BaseException as error:
                seen.append(type(error).__name__)
                raise
            finally:
                seen.append(f"close {name}")

        return generate

    return ScopeFactory("numbers", "Yields.", generator("managed"), generator("injected")), seen


def test_inspection_takes_it_for_what_frameworks_need() -> None:
    numbers, _ = factory()
    assert inspect.isasyncgenfunction(numbers.__call__)
    assert not inspect.iscoroutinefunction(numbers)
    assert not inspect.signature(numbers).parameters
    assert (numbers.__name__, numbers.__doc__) == ("numbers", "Yields.")
    assert repr(numbers) == "<function numbers>"


async def test_async_with_enters_the_managed_generator() -> None:
    numbers, seen = factory()
    async with numbers() as value:
        assert value == "managed"
    assert seen == ["open managed", "close managed"]


async def test_an_error_in_the_block_reaches_the_generator() -> None:
    numbers, seen = factory()
    with pytest.raises(ZeroDivisionError):
        async with numbers():
            raise ZeroDivisionError
    assert seen == ["open managed", "ZeroDivisionError", "close managed"]


async def test_iteration_runs_the_injected_generator() -> None:
    numbers, seen = factory()
    assert [value async for value in numbers()] == ["injected"]
    assert seen == ["open injected", "close injected"]


async def test_an_error_thrown_in_reaches_the_generator() -> None:
    numbers, seen = factory()
    scope = numbers()
    assert await anext(scope) == "injected"
    with pytest.raises(ZeroDivisionError):
        await scope.athrow(ZeroDivisionError())
    assert seen == ["open injected", "ZeroDivisionError", "close injected"]


async def test_closing_ends_the_generator() -> None:
    numbers, seen = factory()
    scope = numbers()
    await anext(scope)
    await scope.aclose()
    assert seen == ["open injected", "GeneratorExit", "close injected"]


async def test_leaving_what_was_never_entered_says_so() -> None:
    numbers, _ = factory()
    with pytest.raises(RuntimeError, match="async with"):
        await numbers().__aexit__(None, None, None)
