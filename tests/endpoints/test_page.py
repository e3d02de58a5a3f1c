"""The live page as it is sent."""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from reviewpoint_db.endpoints.page import page

POLICY = page().headers["content-security-policy"]
DOCUMENT = page().body.decode()
SOURCES = {
    path.name: path.read_text()
    for path in Path(str(files("reviewpoint_db") / "dashboard")).iterdir()
}


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


def test_the_policy_allows_what_is_in_the_page_and_nothing_else() -> None:
    scripts = re.findall(r"<script>(.*?)</script>", DOCUMENT, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", DOCUMENT, re.DOTALL)
    assert len(scripts) == 5
    directives = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert directives == {
        "default-src": "'none'",
        "script-src": " ".join(map(digest, scripts)),
        "style-src": digest(style),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    assert "unsafe" not in POLICY


def test_it_is_neither_stored_nor_sniffed_nor_framed() -> None:
    headers = page().headers
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


def test_it_loads_nothing_and_knows_no_other_address() -> None:
    addresses = set(re.findall(r"https?://[^\s'\"]+", "".join(SOURCES.values())))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never asked for
    assert "<!-- s" not in DOCUMENT


def test_nothing_makes_markup_of_text() -> None:
    for name, source in SOURCES.items():
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " on",
        ):
            assert f"{way}=" not in source.replace(" = ", "="), (name, way)
            assert way == " on" or way not in source, (name, way)
