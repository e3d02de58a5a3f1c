"""What the worker processes of one host tell each other, over private Unix sockets.

Each process listens in a folder that belongs to its user alone (mode 0700), on a socket of mode 0600
named after the database, and writes its answer to whoever connects. Who asks finds the others by
their sockets, and waits for no more than its bound: a process that hangs is told of as silent.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Answer", "Siblings"]

#: Processes that are asked at most.
_MOST: Final = 64
#: Bytes of one answer at most; what is longer counts as none.
_LONGEST: Final = 4 * 1024 * 1024
#: Connections at one time at most, and seconds for each: nobody may hold a worker up.
_MOST_CALLERS: Final = 16
_WRITE_TIMEOUT: Final = 2.0
#: Seconds that a process may have a socket without listening yet.
_STARTING: Final = 5.0


class Answer(NamedTuple):
    """What one process said; no body when it said nothing within the bound."""

    pid: int
    body: bytes | None


class Siblings:
    """The processes of this user on this host that use the same database.

    Example:
        >>> siblings = Siblings("default postgresql://db/papers")
        >>> async with siblings.serving(lambda: b"my report"):
        ...     answers = await siblings.ask(timeout=1.0)

    Args:
        identity: Says which database it is; it shows as a digest only.
        folder: Where the sockets are; None takes a private one below `XDG_RUNTIME_DIR`, or else
            below the folder for temporary files.
        token: Hexadecimal digits that those of one process have in common who answer alike; they ask
            each other nothing. None for one that stands by itself.
    """

    def __init__(
        self, identity: str, folder: Path | None = None, *, token: str | None = None
    ) -> None:
        self._key = sha256(identity.encode()).hexdigest()[:16]
        self._token = token or secrets.token_hex(4)
        self._folder = folder
        self._own: Path | None = None
        self._callers = 0

    @asynccontextmanager
    async def serving(self, answer: Callable[[], bytes]) -> AsyncIterator[None]:
        """Answer the other processes for as long as the block runs.

        Args:
            answer: Makes this process's answer.

        Raises:
            OSError: There is no private folder, or no socket can be made in it.
        """
        if not hasattr(os, "getuid"):
            msg = "this system has no Unix sockets"
            raise OSError(msg)
        folder = _private(self._folder or _default_folder())
        path = folder / f"{self._key}-{os.getpid()}-{self._token}-{secrets.token_hex(2)}.sock"

        async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._reply(writer, answer)

        _remove_left_overs(folder)
        server = await asyncio.start_unix_server(reply, path)
        try:
            path.chmod(0o600)
            self._own = path
            yield
        finally:
            self._own = None
            server.close()
            path.unlink(missing_ok=True)

    async def ask(self, timeout: float) -> list[Answer]:
        """Ask all the others at once.

        Args:
            timeout: Seconds for all of them together.

        Returns:
            One answer for each process that is there, in the order of their ids.
        """
        if self._own is None:
            return []
        found = sorted(self._own.parent.glob(f"{self._key}-*.sock"))
        # One is enough of those who answer alike, each in a loop of its own.
        alike = {path.name.rpartition("-")[0]: path for path in found}
        alike.pop(self._own.name.rpartition("-")[0], None)
        others = {path: _pid_of(path) for path in alike.values()}
        asked = sorted(others, key=lambda path: others[path])[:_MOST]
        answers = await asyncio.gather(*(_ask(path, timeout) for path in asked))
        return [
            Answer(others[path], body)
            for path, body in zip(asked, answers, strict=True)
            if body is not None or path.exists()
        ]

    async def _reply(self, writer: asyncio.StreamWriter, answer: Callable[[], bytes]) -> None:
        self._callers += 1
        try:
            if self._callers <= _MOST_CALLERS:
                async with asyncio.timeout(_WRITE_TIMEOUT):
                    writer.write(answer())
                    await writer.drain()
        except (OSError, TimeoutError):
            writer.transport.abort()  # whoever asked has gone, or does not read
        finally:
            self._callers -= 1
            writer.close()


async def _ask(path: Path, timeout: float) -> bytes | None:
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST)
            try:
                body = await reader.read(_LONGEST)
                while len(body) < _LONGEST and (more := await reader.read(_LONGEST)):
                    body += more
            finally:
                writer.close()
    except ConnectionRefusedError:
        _remove_left_over(path)
        return None
    except (OSError, TimeoutError):
        return None
    return body if 0 < len(body) < _LONGEST else None


def _remove_left_overs(folder: Path) -> None:
    """Remove the sockets of killed processes, those of databases that nobody uses any more too."""
    left = (path for path in folder.glob("*.sock") if not _is_running(_pid_of(path)))
    for path in islice(left, _MOST):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.setblocking(False)
            try:  # in a container, the number may be one of another container's
                caller.connect(str(path))
            except ConnectionRefusedError:
                _remove_left_over(path)
            except OSError:
                pass  # it is busy, or just gone


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False  # where it is another user's, the number was given anew
    return True


def _remove_left_over(path: Path) -> None:
    """Remove the socket of a process that was killed, and not of one that is about to listen."""
    try:
        if time.time() - path.lstat().st_mtime > _STARTING:
            path.unlink()
    except FileNotFoundError:
        pass  # another process was faster


def _pid_of(path: Path) -> int:
    found = re.search(r"-(\d+)-[0-9a-f-]+\.sock$", path.name)
    return int(found[1]) if found else 0


def _default_folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir())
    return base / f"reviewpoint_db-{os.getuid()}"


def _private(folder: Path) -> Path:
    """Make a folder of this user alone, or refuse one that somebody else has prepared."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid != os.getuid()
        or stat.S_IMODE(found.st_mode) & 0o077
    ):
        msg = f"{folder} is not a folder of this user alone (mode 0700): remove it"
        raise PermissionError(msg)
    return folder
