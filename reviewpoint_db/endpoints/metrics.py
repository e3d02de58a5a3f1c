"""The metrics route."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reviewpoint_db.endpoints.reply import SECURITY_HEADERS, Reply
from reviewpoint_db.metrics import exposition

if TYPE_CHECKING:
    from reviewpoint_db.database import Database

__all__ = ("metrics",)


def metrics(database: Database) -> Reply:
    """Answer `GET /metrics`: Prometheus text; 501 where `prometheus_client` is not installed.

    Args:
        database: Whose metrics they are.
    """
    status = 200
    try:
        body, media_type = exposition(database)
    except ImportError:
        status, media_type = 501, "text/plain; charset=utf-8"
        body = b"Install reviewpoint-db[prometheus] to have metrics here.\n"
    return Reply(status=status, headers={**SECURITY_HEADERS, "content-type": media_type}, body=body)
