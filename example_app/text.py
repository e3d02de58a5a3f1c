"""Text from outside: trimmed, or refused in words that a person understands."""

import re
from typing import Annotated

from msgspec import Meta

Line = Annotated[str, Meta(max_length=100)]
Title = Annotated[str, Meta(max_length=200)]
Prose = Annotated[str, Meta(max_length=10_000)]
Email = Annotated[str, Meta(max_length=254, examples=["ada@example.org"])]


def tidy(value: str, field: str) -> str:
    value = value.strip()
    if not value:
        raise ValueError(f"{field} must not be empty")
    if "\0" in value:
        raise ValueError(f"{field} must not contain NUL characters")  # PostgreSQL stores none
    return value


def tidy_email(value: str, field: str) -> str:
    value = tidy(value, field).lower()
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", value):
        raise ValueError(f"{field} must be an email address such as ada@example.org")
    return value
