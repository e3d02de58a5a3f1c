"""However a run ends, nothing is left of it: no row, no database, no server, no folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from reviewpoint_db_pytest import reaper
from reviewpoint_db_pytest.run import Run
from tests.testing.conftest import OPTIONS
from tests.testing.ends import databases_of_tests, left, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.postgres import RemoteServer
    from tests.testing.conftest import Project

WRITES = """
import pytest
from tests.support.notes import notes, write

async def use(session):
    assert list(await session.execute(notes.select())) == []
    await write(session, "one")
    await session.commit()

@pytest.mark.parametrize("n", range(4))
async def test_it(db_session, n):
    await use(db_session)

async def test_that_fails(db_session):
    await use(db_session)
    await use(db_session)

async def test_that_fails_with_a_clone(db_clone):
    assert not db_clone
"""

#: Each of two workers has its database, and the second a clone; then something ends them.
MIDDLE = """
import os, signal, time
import pytest

# Whoever runs the tests in the background has the signal ignored, by his shell.
signal.signal(signal.SIGINT, signal.default_int_handler)

def wait_for(folder, pattern, count):
    deadline = time.monotonic() + 30
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)

@pytest.mark.parametrize("n", range(2))
def test_it(request, n, pytestconfig):
    request.getfixturevalue("db_clone" if n else "db_session")
    here = pytestconfig.rootpath
    (here / f"database{n}").touch()
    wait_for(here, "database*", 2)
    if n:
        wait_for(here, "ended", 1)
    else:
        (here / "ended").touch()
        END
    time.sleep(0.2)
"""


def begin(project: Project, *arguments: str) -> subprocess.Popen[bytes]:
    """Starts an inner run as a terminal does: in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *OPTIONS, *arguments],
        cwd=project.pytester.path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )


def test_nothing_is_left_of_a_run_with_failures_by_two_workers(
    postgres_project: Project, postgres: RemoteServer, postgres_url: str, place: Path
) -> None:
    postgres_project.write("test_it.py", WRITES)
    postgres_project.run("-n2", "--shuffled=3").assert_outcomes(passed=4, failed=2)
    assert databases_of_tests(postgres, postgres_url) == []
    assert left(place) == []


def test_ctrl_c_with_two_workers_leaves_no_database(
    postgres_project: Project, postgres: RemoteServer, postgres_url: str, place: Path
) -> None:
    everybody = "os.killpg(os.getpgid(0), signal.SIGINT)"
    postgres_project.write("test_it.py", MIDDLE.replace("END", everybody))
    heeding = "\nimport signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    with (postgres_project.pytester.path / "conftest.py").open("a") as conftest:
        conftest.write(heeding)
    assert begin(postgres_project, "-n2").wait(60) == pytest.ExitCode.INTERRUPTED
    assert databases_of_tests(postgres, postgres_url) == []
    assert left(place) == []


def test_ctrl_c_ends_the_embedded_server(unconfigured: Project, place: Path) -> None:
    unconfigured.write(
        "test_it.py",
        """
        import os, signal

        signal.signal(signal.SIGINT, signal.default_int_handler)

        def test_it(db_session):
            os.kill(os.getpid(), signal.SIGINT)
        """,
    )
    assert begin(unconfigured).wait(60) == pytest.ExitCode.INTERRUPTED
    assert left(place) == []


def test_a_worker_that_crashes_leaves_nothing(
    postgres_project: Project, postgres: RemoteServer, postgres_url: str, place: Path
) -> None:
    postgres_project.write("test_it.py", MIDDLE.replace("END", "os._exit(3)"))
    postgres_project.run("-n2").assert_outcomes(passed=1, failed=1)
    assert databases_of_tests(postgres, postgres_url) == []
    assert left(place) == []


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_from_outside_leaves_no_database(
    postgres_project: Project,
    postgres: RemoteServer,
    postgres_url: str,
    place: Path,
    end: signal.Signals,
) -> None:
    its_owner = f"os.kill(os.getppid(), {int(end)})"
    postgres_project.write("test_it.py", MIDDLE.replace("END", its_owner))
    assert begin(postgres_project, "-n2").wait(60) == -end
    wait_until(lambda: not left(place))
    assert databases_of_tests(postgres, postgres_url) == []


def test_a_run_that_is_ended_from_outside_leaves_no_server(
    unconfigured: Project, place: Path
) -> None:
    unconfigured.write(
        "test_it.py",
        """
        import os, signal

        def test_it(db_url):
            os.kill(os.getpid(), signal.SIGTERM)
        """,
    )
    assert begin(unconfigured).wait(60) == -signal.SIGTERM
    wait_until(lambda: not left(place))


def test_a_killed_run_that_never_used_a_database_leaves_no_folder(
    unconfigured: Project, place: Path
) -> None:
    unconfigured.write(
        "test_it.py",
        """
        import os, signal, time

        def test_it():
            controller, deadline = os.getppid(), time.monotonic() + 10
            os.kill(controller, signal.SIGKILL)
            while os.getppid() == controller:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        """,
    )
    assert begin(unconfigured, "-n1").wait(60) == -signal.SIGKILL
    wait_until(lambda: not left(place))


def test_a_folder_that_is_in_use_or_watched_is_not_the_workers_to_remove(place: Path) -> None:
    run = Run.create()
    worker = Run(run.folder, "gw0")
    worker.remove_unused()
    assert left(place) == [run.folder]
    assert run._owned is not None
    run._owned.close()
    (run.folder / "reaper").touch()
    worker.remove_unused()
    assert left(place) == [run.folder]
    (run.folder / "reaper").unlink()
    worker.remove_unused()
    assert left(place) == []
    worker.remove_unused()  # another one was faster


def test_what_is_killed_together_with_its_reaper_is_removed_by_the_next_run(
    postgres_project: Project, postgres: RemoteServer, postgres_url: str, place: Path
) -> None:
    postgres_project.write(
        "test_it.py",
        """
        import os, signal
        from pathlib import Path

        def test_it(db_clone):
            [made] = Path(os.environ["TMPDIR"]).glob("reviewpoint_db-*/reaper.made")
            os.kill(int(made.read_text()), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    assert begin(postgres_project).wait(60) == -signal.SIGKILL
    assert len(databases_of_tests(postgres, postgres_url)) == 3
    [abandoned] = left(place)
    postgres_project.passes("def test_it(db_url): pass")
    assert databases_of_tests(postgres, postgres_url) == []
    wait_until(lambda: not abandoned.exists())


def end(run: Run) -> None:
    """Lets a run go as its process's end does, and removes it as its reaper does."""
    assert run._owned is not None
    run._owned.close()
    reaper.reap(run.folder)


@pytest.mark.parametrize("since", [True, False])
def test_what_another_run_has_made_since_is_not_touched(
    postgres: RemoteServer, postgres_url: str, place: Path, since: bool
) -> None:
    """A killed run's reaper may come when the next run has taken the names."""
    name = f"test_{postgres_url.rpartition('/')[2]}"[:40]
    run = Run.create()
    maker = "another" if since else run.folder.name
    postgres.create_database(f"{name}_template")
    postgres.psql(f"COMMENT ON DATABASE \"{name}_template\" IS '{maker}'")
    run.once("server_url", lambda: postgres_url)
    (run.folder / "databases").write_text(f"{name}_template\n")
    end(run)
    assert left(place) == []
    assert bool(databases_of_tests(postgres, postgres_url)) == since
    postgres.drop_database(f"{name}_template")


def test_the_number_of_a_server_may_be_another_process_by_now(place: Path) -> None:
    run = Run.create()
    (run.folder / "server").mkdir()
    (run.folder / "server" / "postmaster.pid").write_text(f"{os.getpid()}\n")
    end(run)
    assert left(place) == []


def test_workers_are_awaited_but_not_for_ever(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.create()
    worker = Run(run.folder, "gw0")
    worker.once("reaper", lambda: "")
    worker.watch()
    worker.watch()  # it is a member once
    waiting = threading.Thread(target=end, args=[run])
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    assert left(place) == [run.folder]
    worker.close()
    waiting.join(10)
    assert left(place) == []
    monkeypatch.setattr(reaper, "_WORKERS", 0.05)
    run = Run.create()
    worker = Run(run.folder, "gw0")
    worker.once("reaper", lambda: "")
    worker.watch()
    end(run)
    assert left(place) == []
    worker.close()


def test_a_folder_that_somebody_else_abandoned_is_left(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "reviewpoint_db-theirs"
    folder.mkdir()
    (folder / "owner.lock").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    run = Run.create()
    run.close()
    assert left(place) == [folder]
