"""A PgBouncer that tracks prepared statements (1.21), where the machine's own is older.

    python -m tests.support.newer_pgbouncer

takes the one of the next Debian from the archive that this machine's apt uses, with the libraries that it
needs, into build/pgbouncer. Nothing is installed: it runs from there, by the C library beside it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["FOLDER", "fetch", "loader"]

FOLDER = Path(__file__).parents[2] / "build" / "pgbouncer"

_RELEASE = "trixie"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PACKAGES = (
    *("pgbouncer", "libc6", "libevent-2.1-7t64", "libcares2", "libssl3t64", "libpam0g"),
    *("libsystemd0", "libcap2", "libaudit1", "libcap-ng0", "zlib1g", "libzstd1"),
)


def fetch(folder: Path = FOLDER) -> None:
    """Fetches it, unless it is there.

    Raises:
        RuntimeError: The machine has no apt, or another distribution's.
        subprocess.CalledProcessError: apt failed; what it said was shown.
    """
    if (folder / "usr/sbin/pgbouncer").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    apt = folder / "apt"
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "sources.list").write_text(f"deb [signed-by={_KEYS}] {_archive()} {_RELEASE} main\n")
    options = {
        "Dir::State": apt,
        "Dir::State::lists": apt / "lists",
        # What this machine has installed says nothing about what is fetched.
        "Dir::State::status": "/dev/null",
        "Dir::Cache": apt,
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _run("apt-get", "-qq", *given, "update", cwd=apt)
    _run("apt-get", "-qq", *given, "download", *_PACKAGES, cwd=apt)
    for package in apt.glob("*.deb"):
        _run("dpkg", "-x", str(package), str(folder), cwd=apt)
    shutil.rmtree(apt)


def loader(folder: Path = FOLDER) -> list[str]:
    """The words before the program's own, by which it runs with its libraries."""
    (found,) = folder.glob("usr/lib/*/ld-linux-*")
    return [str(found), "--library-path", str(found.parent)]


def _archive() -> str:
    """Where this machine's apt finds Debian."""
    if shutil.which("apt-get"):
        targets = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(SITE) $(REPO_URI)", "Created-By: Packages"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for uri in targets.split():
            if re.search(r"/debian/?$", uri):
                return uri
    raise RuntimeError("this is no Debian: install PgBouncer 1.21 or newer for tests/scale")


def _run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, timeout=120, stdout=sys.stderr)


if __name__ == "__main__":
    from tests.support.pgbouncer import TRACKING, version

    if version() < TRACKING:
        fetch()
