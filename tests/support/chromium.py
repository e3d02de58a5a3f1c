"""A real browser: Debian's chromium, driven by its chromedriver through Selenium.

A test that needs it fails where it is missing, and says how to get it: a page that nobody has
looked at is not tested.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable

HOW_TO_GET_IT = "apt-get install -y chromium chromium-driver"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Bounds of a wait, in seconds: for a busy machine with two cores.
TIMEOUT = 30.0


class Browser:
    """One window, that remembers what it asked for and complained about."""

    def __init__(self, folder: Path) -> None:
        """Starts it; `folder` is for its profile."""
        found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise RuntimeError(f"{' and '.join(missing)} not found: {HOW_TO_GET_IT}")
        options = ChromeOptions()
        options.binary_location = str(found["chromium"])
        for flag in (*_FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = Chrome(options=options, service=Service(str(found["chromedriver"])))
        self.driver.set_page_load_timeout(TIMEOUT)
        self.driver.set_script_timeout(TIMEOUT)
        self._requested: list[str] = []
        self.resize(1280, 900)

    def close(self) -> None:
        """Ends it."""
        self.driver.quit()

    def resize(self, width: int, height: int) -> None:
        """Gives the page a size in CSS pixels."""
        self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, scheme: str) -> None:
        """Prefers the "light" or the "dark" colours."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._command("Emulation.setEmulatedMedia", features=features)

    def open(self, url: str) -> None:
        """Loads a page."""
        self.driver.get(url)

    def text(self, selector: str) -> str:
        """The text of the first such element, as it is seen; a space is a space."""
        text = self.run("return document.querySelector(arguments[0]).innerText", selector)
        return str(text).replace("\xa0", " ")

    def run(self, script: str, *arguments: Any) -> Any:
        """Runs a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, holds: Callable[[], Any], what: str) -> Any:
        """Waits until something holds, and returns it.

        Raises:
            AssertionError: It did not, within `TIMEOUT`.
        """
        deadline = time.monotonic() + TIMEOUT
        while not (value := holds()):
            assert time.monotonic() < deadline, f"{what}:\n{self.text('body')}"
            time.sleep(0.05)
        return value

    def complaints(self) -> list[str]:
        """Errors and warnings of the console; violations of the policy are among them."""
        return [str(entry["message"]) for entry in self._log("browser")]

    def requested(self) -> list[str]:
        """All addresses that the pages asked for since the start."""
        for entry in self._log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self._requested.append(message["params"]["request"]["url"])
        return self._requested

    def axe(self) -> list[dict[str, Any]]:
        """What axe-core finds that keeps people from using the page."""
        source = (Path(__file__).parents[1] / "browser/vendor/axe.min.js").read_text()
        self.run(source)
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run().then((result) => done(result.violations), (error) => done([String(error)]));"
        )
        return [
            {
                "id": each["id"],
                "impact": each["impact"],
                "nodes": [n["html"] for n in each["nodes"]],
            }
            for each in found
        ]

    def shoot(self, path: Path, height: int | None = None) -> None:
        """Takes a picture of the whole page, or of its first so many pixels."""
        height = height or self.run("return document.documentElement.scrollHeight")
        width = self.run("return window.innerWidth")
        picture = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot",
            {
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
            },
        )
        import base64

        path.write_bytes(base64.b64decode(picture["data"]))

    def _log(self, kind: str) -> list[dict[str, Any]]:
        driver: Any = self.driver
        entries: list[dict[str, Any]] = driver.get_log(kind)
        return entries

    def _command(self, name: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)
