"""Ground: what a sandbox needs of the real connection that it stands on."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Ground"]


class Ground(Protocol):
    """The real connection that a sandbox stands on."""

    #: Whether a statement that fails makes the transaction around it unusable.
    fragile: bool

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
