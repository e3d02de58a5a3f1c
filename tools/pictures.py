"""Takes pictures of the live page in each of its states: `python -m tools.pictures build/pictures`.

The application of tests/browser gets into trouble on a real PostgreSQL. The documentation has
`exhausted-docs.png` and `blocked-docs.png`, made small by
`pngquant 96 --output docs/assets/live-page-blocked.png build/pictures/blocked-docs.png`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.browser.conftest import Trouble
from tests.support.chromium import Browser
from tests.support.postgres import PostgresServer
from tests.support.run import Run
from tests.support.server import AsgiServer

#: Width, colours and last section of each picture; None is the whole page.
_LOOKS: Final[dict[str, tuple[int, str, str | None]]] = {
    "light": (1280, "light", None),
    "dark": (1280, "dark", None),
    "phone": (390, "light", None),
    "docs": (1180, "light", "charts"),
}
_END: Final = (
    "return Math.ceil(document.getElementById(arguments[0]).closest('section')"
    ".getBoundingClientRect().bottom + window.scrollY) + 12"
)
#: Seconds for which a state lasts before it is taken, so that the charts show something.
_LASTS: Final = 12.0


def calm(trouble: Trouble, _: PostgresServer) -> None:
    """Requests come, and are answered."""
    until = time.monotonic() + _LASTS
    while time.monotonic() < until:
        trouble.get("/quick")
        time.sleep(0.1)


def busy(trouble: Trouble, _: PostgresServer) -> None:
    """Most connections are in use."""
    while trouble.live()["gauges"]["out"] < 4:
        trouble.leave("GET", "/slow")
    _go_on(trouble)


def exhausted(trouble: Trouble, _: PostgresServer) -> None:
    """One route holds all of them."""
    while trouble.live()["gauges"]["waiting"] < 3:
        trouble.leave("GET", "/slow")
    _go_on(trouble)


def leaking(trouble: Trouble, _: PostgresServer) -> None:
    """Tasks end without returning what they took."""
    trouble.get("/leak")
    trouble.get("/leak")
    _go_on(trouble)


def blocked(trouble: Trouble, _: PostgresServer) -> None:
    """One has a lock, others wait for it."""
    trouble.leave("PATCH", "/papers/7")
    while trouble.live()["gauges"]["out"] < 1:
        time.sleep(0.05)
    trouble.leave("POST", "/reviews", 2)
    _go_on(trouble)


def late(trouble: Trouble, _: PostgresServer) -> None:
    """A worker's event loop was blocked."""
    with trouble.blocked_loop():
        time.sleep(_LASTS / 2)
    _go_on(trouble)


def unreachable(trouble: Trouble, server: PostgresServer) -> None:
    """The server is down, and requests wait for it."""
    calm(trouble, server)
    server.stop("immediate")
    trouble.leave("GET", "/quick", 3)
    _go_on(trouble)


def _go_on(trouble: Trouble) -> None:
    time.sleep(_LASTS)
    trouble.live()


STATES: Final[dict[str, Callable[[Trouble, PostgresServer], None]]] = {
    "calm": calm,
    "busy": busy,
    "exhausted": exhausted,
    "leaking": leaking,
    "blocked": blocked,
    "late": late,
    "unreachable": unreachable,
}
#: Processes, where it is not two: the system shares requests out as it likes, and one may be full before.
_WORKERS: Final = {"busy": 1}


def main(arguments: list[str] | None = None) -> int:
    """Run by arguments; returns the process's exit code."""
    parser = argparse.ArgumentParser("python -m tools.pictures", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to")
    parser.add_argument("--only", nargs="+", choices=STATES, default=[*STATES])
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    run = Run.create()
    try:
        for state in options.only:
            server = run.own_server(state)  # of its own: it may be stopped
            server.start()
            _take(state, server, options.folder)
            server.remove()
    finally:
        run.close()
    return 0


def _take(state: str, server: PostgresServer, folder: Path) -> None:
    with ExitStack() as stack:
        runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="rp"))
        browser = Browser(Path(runtime))
        stack.callback(browser.close)
        env = {"REVIEWPOINT_DB_URL": server.create_database(state), "XDG_RUNTIME_DIR": runtime}
        workers = _WORKERS.get(state, 2)
        options = ("--timeout-graceful-shutdown", "1", "--workers", str(workers))
        served = stack.enter_context(AsgiServer("tests.browser.app:app", env=env, options=options))
        trouble = stack.enter_context(Trouble(served, Path(runtime)))
        browser.wait(lambda: len(trouble.live()["workers"]) == workers, "all workers answer")
        STATES[state](trouble, server)
        for look, (width, scheme, last) in _LOOKS.items():
            browser.resize(width, 900)
            browser.prefer(scheme)
            browser.open(trouble.page)
            browser.wait(lambda: browser.text("#name"), "the page has its figures")
            height = browser.run(_END, last) if last else None
            browser.shoot(folder / f"{state}-{look}.png", height)


if __name__ == "__main__":
    sys.exit(main())
