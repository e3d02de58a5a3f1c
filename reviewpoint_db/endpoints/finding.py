"""A finding: one thing that the page has to say, and which state that is."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ("Finding", "State", "waiting_words")

State = Literal["calm", "busy", "degraded", "exhausted", "leaking", "blocked", "unreachable"]


class Finding(NamedTuple):
    """A sentence, its state, and how many connections it explains."""

    weight: int
    state: State
    text: str


def waiting_words(count: int) -> str:
    """Say how many requests wait for a connection."""
    if not count:
        return "nobody waits"
    return "1 request waits" if count == 1 else f"{count} requests wait"
