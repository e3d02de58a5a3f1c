"""Where a task stands at present."""

from __future__ import annotations

import asyncio
import sysconfig
import threading
import types
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest
from sqlalchemy.util import greenlet_spawn

from reviewpoint_db import stacks
from reviewpoint_db.stacks import Frame, stack_of, stack_of_thread, where


def functions(stack: tuple[Frame, ...]) -> list[str]:
    return [frame.function.rpartition(".")[2] for frame in stack]


async def wait_inside(event: asyncio.Event) -> None:
    await event.wait()


async def numbers(event: asyncio.Event) -> AsyncIterator[int]:
    await wait_inside(event)
    yield 1


async def until_waiting(task: asyncio.Task[Any]) -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()


async def test_a_waiting_task_is_followed_to_what_it_waits_for() -> None:
    event = asyncio.Event()

    async def handler() -> None:
        await wait_inside(event)

    task = asyncio.create_task(handler())
    await until_waiting(task)
    stack = stack_of(task)
    assert functions(stack) == ["handler", "wait_inside", "wait"]
    assert [frame.own for frame in stack] == [True, True, False]
    place = where(stack)
    assert place is not None
    assert place.startswith("wait_inside (")
    assert "tests/test_stacks.py:" in place
    assert stack[-1].file == "asyncio/locks.py"
    event.set()
    await task
    assert stack_of(task) == ()
    assert where(()) is None


async def test_async_generators_and_awaitable_objects_are_followed_too() -> None:
    event = asyncio.Event()

    class Waiting:
        def __await__(self) -> Generator[Any, None, None]:
            return wait_inside(event).__await__()

    class Yielding:
        def __await__(self) -> Generator[Any, None, None]:
            yield from Waiting().__await__()

    @types.coroutine
    def plain() -> Generator[Any, None, None]:
        yield from Yielding().__await__()

    async def iterate() -> None:
        async for _ in numbers(event):
            await plain()

    task = asyncio.create_task(iterate())
    await until_waiting(task)
    assert functions(stack_of(task)) == ["iterate", "numbers", "wait_inside", "wait"]
    event.set()
    await task
    event.clear()

    async def other() -> None:
        await plain()

    task = asyncio.create_task(other())
    await until_waiting(task)
    assert functions(stack_of(task)) == ["other", "plain", "__await__", "wait_inside", "wait"]
    event.set()
    await task


async def test_what_sqlalchemy_awaits_is_found_behind_its_greenlet() -> None:
    event = asyncio.Event()

    def work() -> None:
        from sqlalchemy.util import await_only

        await_only(wait_inside(event))

    task = asyncio.create_task(greenlet_spawn(work))
    await until_waiting(task)
    assert functions(stack_of(task)) == ["greenlet_spawn", "wait_inside", "wait"]
    event.set()
    await task


async def test_the_running_task_is_found_in_its_thread() -> None:
    def innermost() -> tuple[Frame, ...]:
        task = asyncio.current_task()
        assert task is not None
        return stack_of(task)

    stack = innermost()
    assert functions(stack)[0] == "test_the_running_task_is_found_in_its_thread"
    assert "innermost" in functions(stack)


def test_a_thread_is_told_by_its_frames() -> None:
    go = threading.Event()
    ready = threading.Event()

    def busy() -> None:
        ready.set()
        go.wait(10)

    thread = threading.Thread(target=busy)
    thread.start()
    ready.wait(10)
    assert thread.ident is not None
    assert "busy" in functions(stack_of_thread(thread.ident))
    go.set()
    thread.join()
    assert stack_of_thread(-1) == ()


def test_a_file_outside_of_all_folders_is_named_in_full() -> None:
    code = compile("import sys\nframe = sys._getframe()", "/somewhere/else.py", "exec")
    found: dict[str, Any] = {}
    exec(code, found)
    assert stacks._shown(found["frame"]).file == "/somewhere/else.py"


def test_the_folders_are_looked_up_once_and_a_file_is_judged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hundreds of stacks of tens of frames are read while the event loop waits."""
    asked: list[str] = []

    def told(kind: str, get: Any = sysconfig.get_path) -> str:
        asked.append(kind)
        return str(get(kind))

    monkeypatch.setattr(sysconfig, "get_path", told)
    stacks._file.cache_clear()
    stacks._roots.cache_clear()
    for _ in range(100):
        assert stack_of_thread(threading.get_ident())
    assert sorted(asked) == ["purelib", "stdlib"]
    files = {frame.file for frame in stack_of_thread(threading.get_ident())}
    assert stacks._file.cache_info().misses == len(files)


async def test_of_a_task_that_waits_no_thread_is_gone_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event = asyncio.Event()
    task = asyncio.create_task(wait_inside(event))
    await until_waiting(task)
    monkeypatch.setattr(stacks, "_frames_of", lambda _thread: pytest.fail("it is in none"))
    assert functions(stack_of(task)) == ["wait_inside", "wait"]
    event.set()
    await task
