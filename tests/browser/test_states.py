"""What the live page says when things go wrong in a real application: the words that name who it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import Trouble
from tests.support.server import AsgiServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.chromium import Browser
    from tests.support.postgres import PostgresServer

#: Connections that one worker may have.
SIZE = 5
AGE = r"(\d+\.\d s|\d+ s|\d+ min( \d+ s)?)"


@pytest.fixture
def seen(browser: Browser, trouble: Trouble, workers: int) -> Iterator[Seen]:
    """The page of the application; what must hold in every state is looked at in the end."""
    browser.wait(lambda: len(trouble.live()["workers"]) == workers, "all workers answer")
    before = len(browser.requested())
    browser.open(trouble.page)
    yield Seen(browser)
    looks_right(browser)
    assert browser.complaints() == []
    ours = (trouble.server.url, "data:")
    assert [url for url in browser.requested()[before:] if not url.startswith(ours)] == []


def looks_right(browser: Browser) -> None:
    """In both colours, and as wide as a telephone."""
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        assert [each for each in browser.axe() if each["impact"] in ("serious", "critical")] == []
    browser.resize(390, 844)
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.resize(1280, 900)


class Seen:
    """What somebody sees who opens the page."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser

    def headline(self, pattern: str, state: str) -> None:
        """Waits until the headline says this, beside this state."""
        self.browser.wait(
            lambda: (
                re.fullmatch(pattern, self.browser.text("#headline-text"))
                and self.browser.text("#headline-state").lower() == state
            ),
            f"the headline does not say {pattern!r}",
        )

    def rows(self, body: str) -> list[str]:
        found = self.browser.run(
            "return [...document.querySelectorAll(`${arguments[0]} > *`)].map(row => row.innerText)",
            body,
        )
        return [" ".join(row.split()) for row in found]


def until(browser: Browser, trouble: Trouble, holds: Callable[[Any], Any], what: str) -> None:
    browser.wait(lambda: holds(trouble.live()), what)


def test_calm(seen: Seen, trouble: Trouble, workers: int) -> None:
    trouble.get("/quick")
    limit = SIZE * workers
    seen.headline(rf"All calm: 0 of {limit} connections in use, nobody waits\.", "calm")
    assert len(seen.rows("#workers-body")) == workers
    note = seen.browser.text("#workers-note")
    assert ("the only worker" in note) == (workers == 1), note
    seen.browser.wait(
        lambda: "select count(*) from papers" in seen.browser.text("#statements-body"), "slow"
    )
    assert "Nobody holds a connection" in seen.browser.text("#holders")


# The system shares requests out as it likes: with two workers, one may be full before.
@pytest.mark.parametrize("workers", [1], ids=["one worker"], indirect=True)
def test_busy(seen: Seen, trouble: Trouble) -> None:
    """Before the pool is empty, it says who is about to empty it."""
    trouble.leave("GET", "/slow", 4)
    seen.headline(
        r"Busy: 4 of 5 connections in use, 4 of them by GET /slow, in render_report; nobody waits\.",
        "busy",
    )


def test_exhausted(seen: Seen, trouble: Trouble, workers: int) -> None:
    limit = SIZE * workers

    def all_taken() -> bool:
        trouble.leave("GET", "/slow")
        gauges = trouble.live()["gauges"]
        return bool(gauges["out"] == limit and gauges["waiting"] >= 2)

    seen.browser.wait(all_taken, "all connections are taken")
    seen.headline(
        rf"GET /slow holds {limit} of {limit} connections, the oldest for {AGE}, in render_report; "
        r"\d+ requests wait\.",
        "exhausted",
    )
    rows = seen.rows("#holders-body")
    assert len(rows) == limit
    place = r"GET /slow in render_report, tests/browser/app\.py:\d+ idle in transaction for \d"
    assert all(re.search(place, row) for row in rows)
    assert "select title from papers" in rows[0]
    assert "GET /slow (" in seen.browser.text("#waiters")
    seen.browser.run("document.querySelector('.toggle').click()")
    stack = seen.browser.text("#holders-body pre")
    assert re.search(r"render_report\s+tests/browser/app\.py:\d+\s+sleep", stack), stack


def test_leaking(seen: Seen, trouble: Trouble) -> None:
    trouble.get("/leak")
    seen.headline(
        rf"A leak: the task that took a connection for GET /leak {AGE} ago has ended without "
        r"returning it\.",
        "leaking",
    )
    row = seen.rows("#holders-body")[0]
    assert re.search(r"GET /leak tests\.browser\.app\.leak .*leaked: its task has ended", row)


def test_blocked(seen: Seen, trouble: Trouble, workers: int) -> None:
    """Also when the two are in different workers, who know nothing of each other."""
    trouble.leave("PATCH", "/papers/7")
    until(seen.browser, trouble, lambda live: live["gauges"]["out"] == 1, "the lock is taken")
    trouble.leave("POST", "/reviews")
    culprit = r"PATCH /papers/\{paper_id\}, which is in send_mail"
    seen.headline(rf"POST /reviews has waited {AGE} for {culprit}\.", "blocked")
    (chain,) = seen.rows("#chains")
    assert re.search(
        r"POST /reviews .* waits .* for → PATCH /papers/\{paper_id\} in send_mail", chain
    )
    assert "update papers set title" in chain
    holding, waiting = seen.rows("#holders-body")
    assert re.search(r"in send_mail, .*idle in transaction for \d.*; others wait for it", holding)
    assert "waits for PATCH /papers/{paper_id}" in waiting
    headline = seen.browser.run("return document.querySelector('#headline-text').textContent")
    assert "PATCH\xa0/papers" in headline  # which is not torn apart at the end of a line
    trouble.leave("POST", "/reviews")
    seen.browser.wait(lambda: len(seen.rows("#chains")) == 2, "the second one waits")
    direct, indirect = seen.rows("#chains")
    assert "for → PATCH /papers" in direct
    assert "for → POST /reviews" in indirect


def test_unreachable(
    browser: Browser, runtime: str, own_postgres: PostgresServer, own_url: str
) -> None:
    env = {"REVIEWPOINT_DB_URL": own_url, "XDG_RUNTIME_DIR": runtime}
    options = ("--timeout-graceful-shutdown", "1")
    with (
        AsgiServer("tests.browser.app:app", env=env, options=options) as server,
        Trouble(server, Path(runtime)) as trouble,
    ):
        browser.open(trouble.page)
        seen = Seen(browser)
        seen.headline(r"All calm: .*", "calm")
        own_postgres.stop("immediate")
        seen.headline(
            rf"The database at 127\.0\.0\.1:\d+ has been unreachable for {AGE}: "
            r"ConnectionRefusedError: .* refused; nobody waits\.",
            "unreachable",
        )
        assert "ConnectionRefusedError" in seen.rows("#workers-body")[0]
        looks_right(browser)
        assert browser.complaints() == []
        own_postgres.start()
        seen.headline(r"All calm: .*", "calm")


def test_names_from_the_application_are_text(seen: Seen, trouble: Trouble) -> None:
    """A table named `<script>` is no script."""
    trouble.get("/odd")
    seen.browser.wait(
        lambda: '"<script>alert(1)</script>"' in seen.browser.text("#statements-body"), "odd table"
    )
    seen.browser.wait(lambda: "<script>" in seen.browser.text("#notices"), "its warning")
    assert seen.browser.run("return document.querySelectorAll('main script').length") == 0


@pytest.mark.parametrize("workers", [1], ids=["one worker"], indirect=True)
def test_late(seen: Seen, trouble: Trouble) -> None:
    """What blocked the loop is told once it is over; its stack is scrolled in its place."""
    with trouble.blocked_loop() as pid:
        seen.headline(r"The application does not answer \(no answer for .*", "lost")
    seen.headline(
        rf"block \(tests/browser/app\.py:\d+\) blocked the event loop of worker {pid} for {AGE}, "
        r"and every request of it waited\.",
        "degraded",
    )
    height, tab = seen.browser.run(
        "const words = document.querySelector('#notices div');"
        "return [words.clientHeight, words.tabIndex]"
    )
    assert height < 200
    assert tab == 0


@pytest.mark.parametrize("workers", [2], ids=["two workers"], indirect=True)
def test_a_worker_that_hangs_is_named(seen: Seen, trouble: Trouble) -> None:
    with trouble.blocked_loop() as pid:
        seen.headline(
            rf"Worker {pid} does not answer: something blocks its event loop.*", "degraded"
        )
        assert f"silent: {pid}" in seen.browser.text("#workers-note")
