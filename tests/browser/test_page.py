"""How the live page behaves: what it asks for, when it pauses, who may see it, how it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.server import AsgiServer

if TYPE_CHECKING:
    from tests.browser.conftest import Trouble
    from tests.support.chromium import Browser

pytestmark = pytest.mark.parametrize("workers", [1], ids=["one worker"], indirect=True)
POLLS = "return performance.getEntriesByType('resource').filter(e => e.name.endsWith('/debug/live')).length"


def test_it_polls_and_pauses_by_its_button(browser: Browser, trouble: Trouble) -> None:
    browser.open(trouble.page)
    browser.wait(lambda: browser.run(POLLS) >= 3, "it does not poll")
    browser.run("document.getElementById('pause').click()")
    browser.wait(lambda: browser.text("#freshness").startswith("paused at"), "it does not pause")
    count = browser.run(POLLS)
    trouble.leave("GET", "/slow")
    browser.wait(lambda: trouble.live()["gauges"]["out"] == 1, "somebody holds a connection")
    assert browser.run(POLLS) <= count + 1  # one may have been under way
    browser.run("document.getElementById('pause').click()")
    browser.wait(lambda: "GET /slow" in browser.text("#holders"), "it goes on")


def test_it_does_not_poll_in_a_hidden_tab(browser: Browser, trouble: Trouble) -> None:
    browser.open(trouble.page)
    browser.wait(lambda: browser.run(POLLS) >= 1, "it does not poll")
    hide = "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
    change = "document.dispatchEvent(new Event('visibilitychange'));"
    # Headless tabs are never hidden, so the page is told that it is.
    browser.run(hide + change, True)
    browser.wait(lambda: browser.text("#freshness") == "hidden", "it does not notice")
    count = browser.run(POLLS)
    # Nothing would say that nothing happens: two intervals and a half have to pass.
    browser.run("return new Promise(done => setTimeout(done, 5000))")
    assert browser.run(POLLS) <= count + 1  # one may have been under way
    count = browser.run(POLLS)
    browser.run(hide + change, False)
    browser.wait(lambda: browser.run(POLLS) > count, "it does not go on")


def test_it_says_when_the_application_is_gone(browser: Browser, trouble: Trouble) -> None:
    browser.open(trouble.page)
    browser.wait(lambda: "All calm" in browser.text("#headline-text"), "it is calm")
    trouble.server.kill()
    browser.wait(
        lambda: "The application does not answer" in browser.text("#headline-text"), "it is lost"
    )
    assert browser.text("#headline-state").lower() == "lost"
    assert browser.text("#freshness").startswith("no answer since ")


def test_it_says_that_its_figures_are_old_while_it_still_waits_for_an_answer(
    browser: Browser, trouble: Trouble
) -> None:
    browser.open(trouble.page)
    browser.wait(lambda: "All calm" in browser.text("#headline-text"), "it is calm")
    stale = "return document.body.hasAttribute('data-stale')"
    assert not browser.run(stale)
    with trouble.blocked_loop():
        browser.wait(lambda: "(no answer for " in browser.text("#headline-text"), "it is stale")
        assert browser.text("#headline-state").lower() == "lost"
        assert browser.text("#freshness").startswith("no answer since ")
        assert browser.run(stale)
    browser.wait(lambda: browser.text("#freshness") == "live, every 2 s", "it goes on")
    browser.wait(
        lambda: "blocked the event loop of worker" in browser.text("#headline-text"), "who"
    )
    assert browser.text("#headline-text").startswith("block (tests/browser/app.py:")
    assert not browser.run(stale)


def test_a_stack_is_opened_by_keyboard_and_stays_open(browser: Browser, trouble: Trouble) -> None:
    trouble.leave("GET", "/slow", 2)
    browser.open(trouble.page)
    browser.wait(
        lambda: browser.run("return document.querySelectorAll('.toggle').length") == 2, "2"
    )
    first = browser.driver.find_element(By.CSS_SELECTOR, ".toggle")
    browser.run("arguments[0].focus()", first)
    first.send_keys(Keys.ENTER)
    assert first.get_dom_attribute("aria-expanded") == "true"
    polls = browser.run(POLLS)
    browser.wait(lambda: browser.run(POLLS) >= polls + 2, "it polls on")
    assert browser.run("return document.activeElement === arguments[0]", first)
    assert first.get_dom_attribute("aria-expanded") == "true"
    assert "render_report" in browser.text("#holders-body pre")


def test_many_holders_are_counted_by_route_and_shown_ten_at_first(
    browser: Browser, trouble: Trouble
) -> None:
    browser.open(trouble.page)
    browser.wait(lambda: browser.run(POLLS) >= 1, "it does not poll")
    browser.run("document.getElementById('pause').click()")
    browser.wait(lambda: browser.text("#freshness").startswith("paused at"), "it does not pause")
    live = trouble.live()
    holder = {
        "held": 1.0, "abandoned": False, "pid": 1, "state": "active", "state_for": 1.0,
        "statement": None, "place": None, "origin": None, "stack": [], "backend_pid": None,
    }  # fmt: skip
    routes = ["GET /slow"] * 11 + ["GET /quick"]
    live["holders"] = [
        {**holder, "id": f"1-{number}", "route": route} for number, route in enumerate(routes)
    ]
    live["holders_total"] = 30
    live["routes"] = [{"route": "GET /slow", "count": 29}, {"route": "GET /quick", "count": 1}]
    live["blamed"] = ["1-11"]
    browser.run("show(arguments[0])", live)
    count = "return document.querySelectorAll('#holders-body > tr').length"
    assert browser.run(count) == 10
    assert browser.text("#routes") == "Most by GET /slow (29), GET /quick (1)"
    assert browser.text("#holders-count") == "(12 of 30)"
    last = "return document.querySelector('#holders-body > tr:last-child .who').textContent"
    assert browser.run(last) == "GET /quick"  # the last of twelve, and whom the headline blames
    assert browser.text("#holders-more") == "Show 2 more"
    browser.run("document.getElementById('holders-more').click()")
    assert browser.run(count) == 12
    browser.run("document.getElementById('holders-more').click()")
    assert browser.run(count) == 10


def test_a_chart_is_interrupted_where_nothing_was_measured(
    browser: Browser, trouble: Trouble
) -> None:
    """A blocked event loop takes no samples; a line across it would say that all was well."""
    browser.open(trouble.page)
    browser.wait(lambda: browser.run(POLLS) >= 1, "it does not poll")
    drawn = "return CHARTS[0].path(arguments[0], 20, 60, 1)"
    assert browser.run(drawn, [[10, 1], [12, 1], [14, 1]]).count("M") == 1
    assert browser.run(drawn, [[10, 1], [12, 1], [20, 1]]).count("M") == 2
    assert browser.run(drawn, [[10, 1], [12, None], [14, 1]]).count("M") == 2


def test_a_screen_reader_hears_of_changes_and_not_of_ages(
    browser: Browser, trouble: Trouble
) -> None:
    trouble.leave("GET", "/slow", 7)
    browser.wait(lambda: trouble.live()["gauges"]["waiting"] == 2, "the pool is empty")
    browser.open(trouble.page)
    browser.wait(lambda: "holds 5 of 5" in browser.text("#headline-text"), "exhausted")
    said = browser.run("return document.getElementById('announcement').textContent")
    assert "GET /slow holds 5 of 5 connections" in said
    shown = browser.text("#headline-text")
    browser.wait(lambda: browser.text("#headline-text") != shown, "the age changes")
    assert browser.run("return document.getElementById('announcement').textContent") == said
    regions = browser.run("return document.querySelectorAll('[aria-live], [role=status]').length")
    assert regions == 1


def test_in_production_it_opens_with_a_password(
    browser: Browser, postgres_url: str, workers: int, runtime: str
) -> None:
    """The browser's own prompt asks for it; the page's polls send it along."""
    env = {
        "REVIEWPOINT_DB_URL": postgres_url,
        "REVIEWPOINT_ENVIRONMENT": "prod",
        "REVIEWPOINT_DB_DEBUG_TOKEN": "open-sesame",
        "XDG_RUNTIME_DIR": runtime,
    }
    with AsgiServer("tests.browser.app:app", env=env) as server:
        for path in ("/db", "/db/", "/db/debug/live"):
            refused = httpx.get(f"{server.url}{path}")
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic ")
            assert b"default" not in refused.content
        browser.open(f"{server.url.replace('://', '://ann:open-sesame@')}/db/")
        browser.wait(lambda: "All calm" in browser.text("#headline-text"), "it does not open")
        assert browser.text("#environment") == "prod"
        assert browser.complaints() == []
        browser.open("about:blank")


def test_the_policy_stops_what_does_not_belong_there(browser: Browser, trouble: Trouble) -> None:
    """Were a name ever taken for markup, it would do nothing, and the other tests would hear of it."""
    browser.open(trouble.page)
    refused = browser.run("""
        const refused = [];
        addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
        const attempt = (act) => { try { act(); } catch (error) { refused.push(error.name); } };
        attempt(() => { document.body.innerHTML += "<b>markup</b>"; });
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/other-origin.png";
        document.body.append(image);
        const style = document.createElement("style");
        style.textContent = "body { display: none }";
        document.body.append(style);
        return fetch("http://127.0.0.1:9/").catch(() => {}).then(
            () => new Promise((done) => setTimeout(() => done(refused), 200)));
    """)
    assert {"TypeError", "require-trusted-types-for"} <= set(refused), refused
    assert {"img-src", "style-src-elem", "connect-src"} <= set(refused), refused
    assert any("Content Security Policy" in each for each in browser.complaints())
