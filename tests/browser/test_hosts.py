"""What the live page says of several database servers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.server import AsgiServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.chromium import Browser
    from tests.support.cluster import PostgresCluster
    from tests.support.run import Run

HEADLINE = "#headline-text"


@pytest.fixture
def cluster(run: Run) -> Iterator[PostgresCluster]:
    """A primary and its standby."""
    cluster = run.own_cluster("page")
    try:
        cluster.start()
        cluster.create_database("papers")
        yield cluster
    finally:
        cluster.remove()


def rows(browser: Browser) -> list[str]:
    script = "return [...document.querySelectorAll('#hosts-body > tr')].map(row => row.innerText)"
    return [" ".join(row.split()) for row in browser.run(script)]


def test_a_replica_that_is_behind_or_down_is_named(
    browser: Browser, cluster: PostgresCluster, runtime: str
) -> None:
    primary, standby = cluster.servers
    env = {
        "REVIEWPOINT_DB_URL": primary.url("papers"),
        "REVIEWPOINT_DB_READ_URL": standby.url("papers"),
        "REVIEWPOINT_DB_MAX_REPLICA_LAG": "1",
        "XDG_RUNTIME_DIR": runtime,
    }
    one, other = (f"127.0.0.1:{server.port}" for server in cluster.servers)
    with AsgiServer("tests.browser.app:app", env=env) as server:
        browser.open(f"{server.url}/db/")
        browser.wait(
            lambda: "read sessions go there" in browser.text("#hosts"), "the replica is read"
        )
        assert "All calm" in browser.text(HEADLINE)
        first, second = rows(browser)
        assert re.fullmatch(
            rf"{one} primary in use takes the sessions that may write \S \d of \d", first
        )
        assert re.fullmatch(
            rf"{other} replica in use read sessions go there \d.*s \d of \d", second
        )

        cluster.pause_replay(1)
        primary.psql("INSERT INTO papers VALUES (10)", "papers")
        behind = (
            rf"Replica {other} is \d+(\.\d)? s behind and gets no reads: reads go to the primary\."
        )
        browser.wait(lambda: re.fullmatch(behind, browser.text(HEADLINE)), "it is behind")
        assert browser.text("#headline-state").lower() == "degraded"
        assert "left out gets no reads: it is behind (" in rows(browser)[1]

        standby.kill()
        down = f"Replica {other} is down: reads go to the primary."
        browser.wait(lambda: browser.text(HEADLINE) == down, "it is down")
        assert "down gets no reads: " in rows(browser)[1]
        assert "Connect" in rows(browser)[1]

        standby.start()
        browser.wait(lambda: "All calm" in browser.text(HEADLINE), "it is back")
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            assert [one for one in browser.axe() if one["impact"] in ("serious", "critical")] == []
        browser.resize(390, 844)
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
        browser.resize(1280, 900)
        assert browser.complaints() == []
