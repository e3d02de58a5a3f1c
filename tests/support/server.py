"""An ASGI application under a real server in a process of its own, and a client made of a socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import h11

from tests.support.postgres import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]

# What the developer's shell or the test runner sets is not meant for the server under test.
_NOT_INHERITED = ("PYTEST_", "REVIEWPOINT_", "DATABASE_URL")


class ServerError(Exception):
    """The server did not start or stop as it should; the message ends with its log."""


class AsgiServer:
    """`with AsgiServer("module:attribute", env={...}) as server:` serves it by uvicorn."""

    def __init__(
        self,
        app: str,
        *,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        folder: Path = ROOT,
        start_timeout: float = 30.0,
        stop_timeout: float = 15.0,
    ) -> None:
        """Prepares a server.

        Args:
            app: What to serve, as uvicorn takes it; imported with the project's root on the path.
            env: Environment variables on top of this process's.
            options: Further arguments for uvicorn, as `("--workers", "2")` or `("--factory",)`.
            folder: The process's working folder.
            start_timeout: Seconds until it must accept connections (its lifespan has started then).
            stop_timeout: Seconds that `stop()` waits for it to end by itself.
        """
        self.app = app
        self.port = 0
        self._options = options
        self._folder = folder
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - __exit__ closes it
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
        }
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._env = {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(env or {})}

    def __enter__(self) -> Self:
        try:
            self.start()
        except ServerError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.running:
                self.stop()
        finally:
            self.kill()
            self._output.close()

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started (with --workers: the one that watches them)."""
        if self._process is None:
            raise ServerError("the server was not started")
        return self._process

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has written to stdout and stderr so far, in the order of writing."""
        self._output.flush()
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), size, 0).decode(errors="replace")

    def start(self) -> None:
        """Starts the server and returns when it accepts connections."""
        deadline = time.monotonic() + self._start_timeout
        while True:
            self.port = free_port()
            self._launch()
            while not accepts(self.port):
                if not self.running:
                    break
                if time.monotonic() > deadline:
                    self.kill()
                    raise ServerError(f"{self.app} did not start in time:\n{self.log}")
                time.sleep(0.02)
            else:
                return
            # Somebody took the port in between.
            if "address already in use" not in self.log:
                raise ServerError(f"{self.app} ended at its start:\n{self.log}")

    def _launch(self) -> None:
        command = [sys.executable, "-m", "uvicorn", self.app, "--host", HOST]
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port), "--no-use-colors", *self._options],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            # A group of its own: kill() reaches its workers, and Ctrl-C does not.
            start_new_session=True,
        )

    def terminate(self) -> None:
        """Sends SIGTERM and returns at once."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Asks it to end and waits until it has.

        Raises:
            ServerError: It did not end in time, and was killed.
        """
        self.terminate()
        try:
            self.process.wait(self._stop_timeout)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise ServerError(f"{self.app} did not stop in time:\n{self.log}") from error

    def kill(self) -> None:
        """Ends it, and its workers, by SIGKILL."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # the group has ended already
            self._process.wait(10)


class RawRequest:
    """One HTTP/1.1 request by a bare socket, to be left in the middle.

    `async with RawRequest(server.port, "POST", "/x", json=...) as request:` sends it; then
    `head()`, `piece()`, `body()`, or `abort()`.
    """

    def __init__(
        self,
        port: int,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout: float = 15.0,
    ) -> None:
        """Prepares a request; `timeout` is for each wait on the server, in seconds."""
        self._port = port
        self._timeout = timeout
        self._body = body
        self._request = h11.Request(
            method=method,
            target=path,
            headers=[
                ("Host", f"{HOST}:{port}"),
                ("Content-Length", str(len(body))),
                *(headers or {}).items(),
            ],
        )
        self._http = h11.Connection(h11.CLIENT)

    async def __aenter__(self) -> Self:
        connecting = asyncio.open_connection(HOST, self._port)
        self._reader, self._writer = await asyncio.wait_for(connecting, self._timeout)
        self._write(self._request)
        if self._body:
            self._write(h11.Data(data=self._body))
        self._write(h11.EndOfMessage())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # a server that has gone is no matter any more

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers (names in lower case)."""
        event = await self._event()
        assert isinstance(event, h11.Response), event
        headers = {name.decode(): value.decode() for name, value in event.headers}
        return event.status_code, headers

    async def piece(self) -> bytes | None:
        """The next piece of the body; None at its end.

        Raises:
            h11.RemoteProtocolError: The server cut the body short.
        """
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def body(self) -> bytes:
        """All of the body."""
        pieces = []
        while (piece := await self.piece()) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    async def abort(self) -> None:
        """Leaves with an RST, as a client that crashed; `async with` ends with an orderly FIN."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        await asyncio.sleep(0)

    def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)

    async def _event(self) -> h11.Event:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                assert not isinstance(event, type), event
                return event
            data = await asyncio.wait_for(self._reader.read(65536), self._timeout)
            self._http.receive_data(data)


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False
