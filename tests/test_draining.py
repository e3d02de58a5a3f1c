"""SIGTERM is heard while an application runs, and nobody's handler is lost."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from reviewpoint_db.draining import on_sigterm

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """What was called at SIGTERM; "server" is the handler that stands there before ours."""
    calls: list[str] = []

    def server(number: int, frame: object) -> None:
        calls.append("server")

    before = signal.signal(signal.SIGTERM, server)
    yield calls
    signal.signal(signal.SIGTERM, before)


def test_ours_is_called_before_the_server_and_only_inside(heard: list[str]) -> None:
    with on_sigterm(lambda: heard.append("ours")):
        signal.raise_signal(signal.SIGTERM)
    assert heard == ["ours", "server"]
    signal.raise_signal(signal.SIGTERM)
    assert heard == ["ours", "server", "server"]


def test_the_handler_is_restored_when_the_body_fails(heard: list[str]) -> None:
    server = signal.getsignal(signal.SIGTERM)
    with pytest.raises(LookupError), on_sigterm(lambda: None):
        raise LookupError
    assert signal.getsignal(signal.SIGTERM) is server


def test_two_may_end_in_any_order(heard: list[str]) -> None:
    server = signal.getsignal(signal.SIGTERM)
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(on_sigterm(lambda: heard.append("first")))
        second.enter_context(on_sigterm(lambda: heard.append("second")))
        first.close()
        signal.raise_signal(signal.SIGTERM)
        assert heard == ["second", "server"]
        second.close()
        assert signal.getsignal(signal.SIGTERM) is server


def test_one_that_stays_in_front_stays(heard: list[str]) -> None:
    with on_sigterm(lambda: heard.append("outer")):
        with on_sigterm(lambda: heard.append("inner")):
            pass
        signal.raise_signal(signal.SIGTERM)
    assert heard == ["outer", "server"]


def test_a_handler_put_in_front_by_others_is_left_alone(heard: list[str]) -> None:
    def theirs(number: int, frame: object) -> None:
        heard.append("theirs")

    with on_sigterm(lambda: heard.append("ours")):
        signal.signal(signal.SIGTERM, theirs)
    assert signal.getsignal(signal.SIGTERM) is theirs


async def test_a_handler_of_the_event_loop_is_called_too() -> None:
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGTERM)
    arrived = asyncio.Event()
    heard: list[str] = []
    loop.add_signal_handler(signal.SIGTERM, arrived.set)
    try:
        with on_sigterm(lambda: heard.append("ours")):
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(arrived.wait(), 10)
        assert heard == ["ours"]
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


def test_where_nobody_handles_it_nothing_is_changed(heard: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with on_sigterm(lambda: heard.append("ours")):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_where_nobody_handles_it_the_process_still_ends_by_it() -> None:
    program = """
import os, signal
from reviewpoint_db.draining import on_sigterm
signal.signal(signal.SIGTERM, signal.SIG_DFL)
with on_sigterm(lambda: print("never", flush=True)):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "")


def test_outside_of_the_main_thread_nothing_is_changed(heard: list[str]) -> None:
    server = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def other_thread() -> None:
        with on_sigterm(lambda: heard.append("ours")):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join(10)
    assert seen == [server]


def test_one_that_ends_in_another_thread_is_silent_from_then_on(heard: list[str]) -> None:
    stack = ExitStack()
    stack.enter_context(on_sigterm(lambda: heard.append("ours")))
    thread = threading.Thread(target=stack.close)
    thread.start()
    thread.join(10)
    signal.raise_signal(signal.SIGTERM)
    assert heard == ["server"]
