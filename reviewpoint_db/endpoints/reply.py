"""What an endpoint answers: status, headers and body, for any framework to send."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

__all__ = ("SECURITY_HEADERS", "Reply", "json_reply")

SECURITY_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # A health answer from a cache is a lie about the present.
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
)
"""Sent with every answer of ours: nothing of it is cached, framed, sniffed or passed on."""

# What msgspec does not know, such as a path in a report, is shown as its text.
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that knows no framework.

    Example:
        >>> Reply(status=200, headers={"content-type": "text/plain"}, body=b"ok").status
        200

    Args:
        status: The HTTP status code.
        headers: Lower-case names with their values.
        body: The bytes to send.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def json_reply(
    status: int,
    content: Any,
    *,
    media_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Answer with JSON and the security headers.

    Args:
        status: The HTTP status code.
        content: Anything msgspec can encode.
        media_type: For formats that are JSON under another name.
        headers: More headers; they win over the security headers of the same name.

    Returns:
        The answer.
    """
    return Reply(
        status=status,
        headers={**SECURITY_HEADERS, "content-type": media_type, **(headers or {})},
        body=_encode(content),
    )
