"""The application in which things go wrong, under a real server, and a real browser."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from tests.support.chromium import Browser
from tests.support.postgres import HOST
from tests.support.server import AsgiServer

if TYPE_CHECKING:
    from collections.abc import Iterator


class Trouble:
    """The served application, and requests to it that are left waiting."""

    def __init__(self, server: AsgiServer, folder: Path) -> None:
        self.server = server
        self._folder = folder
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def page(self) -> str:
        return f"{self.server.url}/db/"

    def live(self) -> Any:
        """The document behind the page."""
        return httpx.get(f"{self.page}debug/live", timeout=30).raise_for_status().json()

    def leave(self, method: str, path: str, times: int = 1) -> None:
        """Sends requests and does not wait for their answers."""
        for _ in range(times):
            connection = self._open.enter_context(
                socket.create_connection((HOST, self.server.port), timeout=30)
            )
            connection.sendall(
                f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n".encode()
            )

    @contextmanager
    def blocked_loop(self) -> Iterator[int]:
        """Has a worker do something that blocks its event loop; gives its process id."""
        self.leave("GET", "/block")
        try:
            yield self._blocker()
        finally:
            (self._folder / "release").touch()

    def _blocker(self) -> int:
        deadline = time.monotonic() + 30
        while not (found := list(self._folder.glob("blocked-*"))):
            assert time.monotonic() < deadline, self.server.log
            time.sleep(0.02)
        return int(found[0].name.partition("-")[2])

    def get(self, path: str) -> None:
        httpx.get(f"{self.server.url}{path}", timeout=30).raise_for_status()


@pytest.fixture(scope="module")
def _chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture
def browser(_chromium: Browser) -> Iterator[Browser]:
    """A window that shows nothing before and after the test, and has nothing to complain about."""
    yield _chromium
    _chromium.open("about:blank")  # else it would go on asking a server that has gone
    _chromium.complaints()


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def workers(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture
def runtime() -> Iterator[str]:
    """A folder for sockets: their paths may have no more than 107 characters."""
    with TemporaryDirectory(prefix="rp") as folder:
        yield folder


@pytest.fixture
def trouble(postgres_url: str, workers: int, runtime: str) -> Iterator[Trouble]:
    env = {"REVIEWPOINT_DB_URL": postgres_url, "XDG_RUNTIME_DIR": runtime}
    options = ("--timeout-graceful-shutdown", "1", "--workers", str(workers))
    with (
        AsgiServer("tests.browser.app:app", env=env, options=options) as server,
        Trouble(server, Path(runtime)) as trouble,
    ):
        yield trouble
