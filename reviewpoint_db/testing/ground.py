"""Ground: what a sandbox needs of the real connection that it stands on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Ground"]


class Ground(Protocol):
    """The real connection that a sandbox stands on."""

    @property
    def failure(self) -> Callable[[], Exception] | None:
        """What makes the error that a transaction answers after a failed statement; None: nothing."""

    @property
    def open(self) -> bool:
        """Whether the outer transaction is open."""

    async def begin(self) -> None:
        """Open the outer transaction."""

    async def undo(self) -> None:
        """Roll the outer transaction back."""

    async def run(self, statement: str) -> None:
        """Execute statements without a result."""

    async def check_deferred(self) -> None:
        """Raise what a COMMIT would raise now."""
