"""The live page: one document with its style and scripts inside, each allowed by its hash."""

from __future__ import annotations

import base64
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from reviewpoint_db.endpoints.reply import SECURITY_HEADERS, Reply

__all__ = ("page",)

#: In the order in which they are run.
_SCRIPTS: Final = ("elements.js", "charts.js", "holders.js", "tables.js", "page.js")


@cache
def page() -> Reply:
    """Answer `GET /`: the same for every database, which the page asks for its figures itself.

    The files are put into one document, so that no address of an asset depends on where the
    application is mounted; the policy names their hashes, and allows nothing else to be loaded,
    run, framed or sent anywhere.
    """
    folder = files("reviewpoint_db") / "dashboard"
    style = (folder / "page.css").read_text("utf-8")
    scripts = [(folder / name).read_text("utf-8") for name in _SCRIPTS]
    document = (folder / "page.html").read_text("utf-8")
    document = document.replace("<!-- style -->", f"<style>{style}</style>")
    inside = "\n".join(f"<script>{script}</script>" for script in scripts)
    document = document.replace("<!-- script -->", inside)
    policy = (
        "default-src 'none'",
        f"script-src {' '.join(map(_hash, scripts))}",
        f"style-src {_hash(style)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
    return Reply(
        status=200,
        headers={
            **SECURITY_HEADERS,
            "content-type": "text/html; charset=utf-8",
            "content-security-policy": "; ".join(policy),
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
        },
        body=document.encode(),
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
