"""What workers tell each other: by private sockets, within a bound, whatever the others do."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from reviewpoint_db.siblings import Siblings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: the path of a socket may have no more than 107 characters."""
    with TemporaryDirectory(prefix="rp") as made:
        yield Path(made)


async def test_each_hears_all_others_of_its_database(folder: Path) -> None:
    one, two, three = (Siblings("papers", folder) for _ in range(3))
    stranger = Siblings("other papers", folder)
    async with (
        one.serving(lambda: b"one"),
        two.serving(lambda: b"two"),
        three.serving(lambda: b"three" * 100_000),
        stranger.serving(lambda: b"stranger"),
    ):
        answers = await one.ask(timeout=5.0)
        assert {answer.pid for answer in answers} == {os.getpid()}
        assert {answer.body for answer in answers} == {b"two", b"three" * 100_000}
        assert await stranger.ask(timeout=5.0) == []
    assert list(folder.iterdir()) == []
    assert await one.ask(timeout=5.0) == []


async def test_the_sockets_are_their_users_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    async with Siblings("papers").serving(bytes):
        (made,) = folder.iterdir()
        (path,) = made.iterdir()
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert "papers" not in path.name


async def test_without_a_runtime_folder_they_are_among_the_temporary_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "not there"))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    async with Siblings("papers").serving(bytes):
        assert [path.name for path in folder.iterdir()] == [f"reviewpoint_db-{os.getuid()}"]


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
async def test_a_folder_that_somebody_prepared_is_refused(folder: Path, kind: str) -> None:
    prepared = folder / "prepared"
    if kind == "open to others":
        prepared.mkdir()
        prepared.chmod(0o777)
    elif kind == "a link":
        (folder / "elsewhere").mkdir(mode=0o700)
        prepared.symlink_to(folder / "elsewhere")
    else:
        prepared.write_text("")
    with pytest.raises(OSError, match="prepared"):
        async with Siblings("papers", prepared).serving(bytes):
            pass


async def test_one_that_hangs_is_silent_after_the_bound(folder: Path) -> None:
    asking, quick = Siblings("papers", folder), Siblings("papers", folder)
    async with asking.serving(bytes), quick.serving(lambda: b"quick"):
        (taken,) = {path.name.partition("-")[0] for path in folder.iterdir()}
        with socket.socket(socket.AF_UNIX) as hanging:
            hanging.bind(str(folder / f"{taken}-7-abcd.sock"))
            hanging.listen()
            answers = await asking.ask(timeout=0.2)
    assert [(answer.pid, answer.body) for answer in answers] == [(7, None), (os.getpid(), b"quick")]


async def test_a_socket_of_a_process_that_was_killed_is_removed(folder: Path) -> None:
    asking = Siblings("papers", folder)
    async with asking.serving(bytes):
        (own,) = folder.iterdir()
        key = own.name.partition("-")[0]
        left, starting, odd = (
            folder / f"{key}-{name}.sock" for name in ("7-abcd", "8-abcd", "odd")
        )
        for path in (left, starting, odd):
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
        os.utime(left, (time.time() - 60, time.time() - 60))
        answers = await asking.ask(timeout=5.0)
        assert not left.exists()
        assert starting.exists()  # it may be about to listen
        assert [(answer.pid, answer.body) for answer in answers] == [(0, None), (8, None)]


async def test_what_killed_processes_left_is_removed_whatever_their_database_was(
    folder: Path,
) -> None:
    left, strange, starting, heard, running = (
        folder / f"{name}.sock"
        for name in (
            "other-9999999-ab",
            f"other-{10**30}-ab",
            "other-9999998-ab",
            "of-9999997-ab",
            f"own-{os.getpid()}-ab",
        )
    )
    gone = folder / "gone-9999996-ab.sock"
    gone.symlink_to(folder / "nowhere")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(heard))
        listening.listen()
        for path in (left, strange, starting, running):
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
        for path in (left, strange, heard, running):
            os.utime(path, (time.time() - 60, time.time() - 60))
        async with Siblings("papers", folder).serving(bytes):
            assert not left.exists()
            assert not strange.exists()
            assert len(list(folder.iterdir())) == 5
    assert set(folder.iterdir()) == {starting, heard, running, gone}


async def test_two_may_remove_the_same_left_over(folder: Path) -> None:
    from reviewpoint_db import siblings

    siblings._remove_left_over(folder / "gone.sock")
    assert list(folder.iterdir()) == []


async def test_an_answer_that_never_ends_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reviewpoint_db.siblings._LONGEST", 1000)
    one, two = Siblings("papers", folder), Siblings("papers", folder)
    async with one.serving(bytes), two.serving(lambda: b"x" * 5000):
        (answer,) = await one.ask(timeout=5.0)
    assert answer.body is None


async def test_those_who_do_not_read_hold_nobody_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever connects and does not read loses its place after a moment; more are turned away."""
    monkeypatch.setattr("reviewpoint_db.siblings._WRITE_TIMEOUT", 0.3)
    one, two = Siblings("papers", folder), Siblings("papers", folder)
    async with one.serving(bytes):
        (own,) = folder.iterdir()
        async with two.serving(lambda: b"x" * 3_000_000):
            (path,) = set(folder.iterdir()) - {own}
            idle = [await asyncio.open_unix_connection(path) for _ in range(16)]
            async with asyncio.timeout(10):
                while two._callers < 16:
                    await asyncio.sleep(0.01)
                assert (await one.ask(timeout=5.0))[0].body is None
                while (await one.ask(timeout=5.0))[0].body is None:
                    await asyncio.sleep(0.05)
            for _, writer in idle:
                writer.close()


async def test_those_who_answer_alike_are_one_and_ask_each_other_nothing(folder: Path) -> None:
    one, same = (Siblings("papers", folder, token="abcd") for _ in range(2))
    other = Siblings("papers", folder)
    async with one.serving(lambda: b"one"), same.serving(lambda: b"one"):
        async with other.serving(lambda: b"other"):
            assert [answer.body for answer in await one.ask(timeout=5.0)] == [b"other"]
            assert [answer.body for answer in await other.ask(timeout=5.0)] == [b"one"]
        assert await same.ask(timeout=5.0) == []


async def test_a_system_without_unix_sockets_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "getuid")
    with pytest.raises(OSError, match="this system has no Unix sockets"):
        async with Siblings("papers", folder).serving(bytes):
            pass
