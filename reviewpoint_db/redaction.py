"""The one place that makes a URL or an exception safe to show."""

from __future__ import annotations

from sqlalchemy.engine import URL

from reviewpoint_db.urls import MASK, split_url

__all__ = ["safe_error", "safe_url", "scrub"]


def safe_url(url: str | URL) -> str:
    """The URL without its secrets.

    Args:
        url: Any text; one that cannot be read as a URL without doubt is masked as a whole.

    Example:
        >>> safe_url("postgresql://ann:p@ss@db/papers?sslpassword=x")
        'postgresql://ann:***@db/papers?sslpassword=***'
    """
    text = url.render_as_string(hide_password=False) if isinstance(url, URL) else url
    parts = split_url(text)
    if parts is not None:
        return str(parts)
    scheme, separator, _ = text.partition("://")
    known = separator and scheme.isascii() and scheme.replace("+", "").isalnum()
    return f"{scheme}://{MASK}" if known else MASK


def safe_error(error: BaseException) -> str:
    """Class, code and safe text of an error in one line."""
    return type(error).__name__


def scrub(error: BaseException) -> None:
    """Remove bound values and the driver's details from an exception, in place."""
