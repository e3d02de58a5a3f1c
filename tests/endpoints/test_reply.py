"""What an endpoint answers."""

from __future__ import annotations

from pathlib import PurePosixPath

from reviewpoint_db.endpoints.reply import SECURITY_HEADERS, json_reply


def test_json_is_answered_with_security_headers() -> None:
    reply = json_reply(200, {"answer": 42})
    assert (reply.status, reply.body) == (200, b'{"answer":42}')
    assert reply.headers == {**SECURITY_HEADERS, "content-type": "application/json"}
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_headers_of_the_endpoint_win() -> None:
    reply = json_reply(503, None, media_type="text/x", headers={"cache-control": "max-age=1"})
    assert reply.headers["cache-control"] == "max-age=1"
    assert reply.headers["content-type"] == "text/x"


def test_what_json_does_not_know_is_shown_as_its_text() -> None:
    assert json_reply(200, {"file": PurePosixPath("/a")}).body == b'{"file":"/a"}'
