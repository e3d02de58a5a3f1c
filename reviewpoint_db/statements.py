"""Statements as they may be shown: their shape, without the values in them."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["BEGIN", "operation_of", "shape_of"]

#: What begins a transaction on SQLite; it is executed as a statement, and waits for the write lock.
BEGIN: Final = "BEGIN IMMEDIATE"

#: Characters of a statement that are kept.
_LONGEST: Final = 1000
_OPERATIONS: Final = frozenset(
    {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "MERGE", "COMMIT", "BEGIN", "CALL", "COPY"}
)

# In this order: a quoted text may hold anything, and a comment may hold a quote.
_VALUES: Final = re.compile(
    r"""
      (?P<space>   (?: \s | --[^\n]* | /\*.*?(?:\*/|\Z) )+ )
    | (?P<dollar>  \$(?P<tag>[A-Za-z_]*)\$ .*? (?: \$(?P=tag)\$ | \Z ) )
    | (?P<escaped> [eE]'(?:[^'\\]|''|\\.)*(?:'|\Z) )
    | (?P<text>    '(?:[^']|'')*(?:'|\Z) )
    | (?P<name>    "(?:[^"]|"")*(?:"|\Z) )
    | (?P<many>    __\[POSTCOMPILE_[^\]]*\] | \$\d+(?:::[A-Z]+)?(?:\s*,\s*\$\d+(?:::[A-Z]+)?)+ | \?(?:\s*,\s*\?)+ )
    | (?P<number>  (?<![\w$.])\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?!\w) )
    """,
    re.VERBOSE | re.DOTALL,
)


def shape_of(statement: str) -> str:
    """Return a statement on one line, its values replaced by `?` and its lists by `...`.

    Texts and numbers that a program wrote into its SQL are values like bound ones, and no log line,
    page or metric shows any.

    Example:
        >>> shape_of("select *  from papers where title = 'Secret' and id in ($1, $2)")
        'select * from papers where title = ? and id in (...)'
    """
    cut = statement[:_LONGEST]
    shape = _VALUES.sub(_replacement, cut).strip()
    return f"{shape} ..." if len(statement) > _LONGEST else shape


def _replacement(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind == "name":
        return match.group()
    if kind == "space":
        return " "
    return "..." if kind == "many" else "?"


def operation_of(statement: str) -> str:
    """Return what a statement does, as one of a few words: a label of metrics."""
    word = statement.lstrip("( \n\t\r")[:8].split(maxsplit=1)
    name = word[0].upper() if word else ""
    return name if name in _OPERATIONS else "OTHER"
