"""What a statement's text says of its effect on a sandbox's savepoints."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["is_control", "is_reading", "is_rollback", "savepoint_in"]

#: Statements that a guard's savepoint around them would disturb.
_CONTROL: Final = re.compile(r"\s*(SAVEPOINT|RELEASE|ROLLBACK)\b", re.IGNORECASE)
#: A member's savepoint in its transaction.
_SAVEPOINT: Final = re.compile(
    r"\s*(SAVEPOINT|RELEASE|ROLLBACK(?:\s+(?:WORK|TRANSACTION))?\s+TO)(?:\s+SAVEPOINT)?"
    r'\s+("[^"]+"|\w+)\s*;?\s*$',
    re.IGNORECASE,
)
_ROLLBACK: Final = re.compile(r"\s*ROLLBACK\b", re.IGNORECASE)
#: Statements that change nothing which a rollback is needed for.
_READING: Final = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
    r"(?:SELECT|SHOW|VALUES|TABLE|EXPLAIN|PRAGMA|SET|RESET|DECLARE|FETCH|CLOSE"
    r"|WITH\b(?!.*\b(?:INSERT|UPDATE|DELETE|MERGE)\b))\b",
    re.IGNORECASE | re.DOTALL,
)


def is_control(text: str) -> bool:
    """Whether a savepoint around the statement would disturb it."""
    return _CONTROL.match(text) is not None


def is_rollback(text: str) -> bool:
    """Whether it is what a failed transaction still takes."""
    return _ROLLBACK.match(text) is not None


def is_reading(text: str) -> bool:
    """Whether it changes nothing that a rollback would be missed for."""
    return _READING.match(text) is not None


def savepoint_in(text: str) -> tuple[str, str]:
    """Return what a statement does to which savepoint; nothing, mostly."""
    match = _SAVEPOINT.match(text)
    if match is None:
        return "", ""
    name = match[2] if match[2].startswith('"') else match[2].lower()
    return match[1].split()[0].upper(), name
