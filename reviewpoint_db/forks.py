"""Forks: what a child process begins with. Nothing of its parent's is used, closed or waited for.

A connection belongs to the parent, a thread of it does not exist in the child, and a lock that such a
thread had is never released there.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Heir", "on_fork"]


class Heir(Protocol):
    """What a fork copies."""

    def forget_parent(self) -> None:
        """Begin anew in a forked child, where no other thread runs yet."""


_heirs: WeakSet[Heir] = WeakSet()


def on_fork(heir: Heir) -> None:
    """Have `heir.forget_parent()` called in each forked child, before anything else runs there.

    Args:
        heir: It is not kept alive by this.
    """
    _heirs.add(heir)


def _forget_parent() -> None:
    for heir in tuple(_heirs):
        heir.forget_parent()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no forks
    os.register_at_fork(after_in_child=_forget_parent)
