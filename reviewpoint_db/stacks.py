"""Where a task stands at present: read from the task when somebody asks, noted nowhere before."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import sysconfig
from functools import cache, lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

__all__ = ["Frame", "stack_of", "stack_of_thread", "where"]

#: Frames that are shown at most.
_DEEPEST: Final = 60
#: What an awaited object is when its coroutine can only be reached through the garbage collector.
_WRAPPERS: Final = ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper")
_PACKAGE: Final = str(Path(__file__).parent)
_LIBRARIES: Final = (
    "<",  # what was not read from a file
    _PACKAGE,
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)


# `gc=False`: of 500 holders there are 20,000, whose number would have the collector go through everything.
class Frame(msgspec.Struct, frozen=True, gc=False):
    """One line of a stack.

    Args:
        file: Its file, below the working directory, or below the folder of its packages.
        line: The line that is being executed.
        function: In which function.
        own: Whether it is the application's, and not a library's.
    """

    file: str
    line: int
    function: str
    own: bool

    def __str__(self) -> str:
        """As a traceback names it."""
        return f"{self.function} ({self.file}:{self.line})"


def stack_of(task: asyncio.Task[Any]) -> tuple[Frame, ...]:
    """Return where a task stands, the outermost call first; nothing of one that is done.

    `Task.get_stack()` has one frame of a task that waits; this goes on to what is waited for.
    """
    if task.done():
        return ()
    outermost = task.get_coro()
    frame = getattr(outermost, "cr_frame", None) or getattr(outermost, "gi_frame", None)
    # One that does not run is found in no thread: nobody goes through all of them for it.
    threads = sys._current_frames() if _runs(outermost) else {}  # noqa: SLF001 - the documented way to the frames
    for thread in threads.values():
        running = _frames_of(thread)
        if frame in running:
            return tuple(map(_shown, running[running.index(frame) :]))
    return tuple(map(_shown, _awaiting(outermost)))


def stack_of_thread(thread: int) -> tuple[Frame, ...]:
    """Return where a thread stands, the outermost call first."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - the documented way to the frames
    return tuple(map(_shown, _frames_of(frame)))


def where(stack: tuple[Frame, ...]) -> str | None:
    """Name the innermost line of the application's own code; None when there is none."""
    return next((str(frame) for frame in reversed(stack) if frame.own), None)


def _runs(outermost: Any) -> bool:
    return getattr(outermost, "cr_running", False) or getattr(outermost, "gi_running", False)


def _frames_of(innermost: FrameType | None) -> list[FrameType]:
    frames: list[FrameType] = []
    while innermost is not None:
        frames.append(innermost)
        innermost = innermost.f_back
    return frames[:_DEEPEST][::-1]


def _awaiting(awaited: Any) -> list[FrameType]:
    """Follow what waits for what."""
    frames: list[FrameType] = []
    while awaited is not None and len(frames) < _DEEPEST:
        if inspect.iscoroutine(awaited):
            frame, inner = awaited.cr_frame, awaited.cr_await
        elif inspect.isasyncgen(awaited):
            frame, inner = awaited.ag_frame, awaited.ag_await
        elif inspect.isgenerator(awaited):
            frame, inner = awaited.gi_frame, awaited.gi_yieldfrom
        else:
            frame, inner = None, _wrapped(awaited)
        if frame is not None:
            frames.append(frame)
        awaited = inner
    return frames


def _wrapped(awaited: Any) -> Any:
    if type(awaited).__name__ not in _WRAPPERS:
        return None  # a future: somebody else's code will complete it
    return next(
        (
            inner
            for inner in gc.get_referents(awaited)
            if inspect.iscoroutine(inner) or inspect.isasyncgen(inner)
        ),
        None,
    )


def _shown(frame: FrameType) -> Frame:
    code = frame.f_code
    short, own = _file(code.co_filename)
    return Frame(short, frame.f_lineno, code.co_qualname, own)


# The event loop waits while stacks are read, and hundreds of tasks stand in the same few files.
@lru_cache(maxsize=4096)
def _file(name: str) -> tuple[str, bool]:
    """Return a file's short name, and whether it is the application's."""
    own = not name.startswith(_LIBRARIES) and "site-packages" not in name
    root = next((root for root in _roots() if name.startswith(root)), "")
    return name[len(root) :], own


@cache
def _roots() -> tuple[str, ...]:
    """The folders below which a file is named, as they were when somebody first asked."""
    purelib, stdlib = sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")
    return tuple(
        f"{root}/" for root in (purelib, str(Path(_PACKAGE).parent), stdlib, str(Path.cwd()))
    )
