"""For which applications a row of the contract holds."""

from __future__ import annotations

import pytest

from tests.contract.stack import ADAPTERS, MODES, Adapter, Backend, Kind, Mode


def kinds(
    *,
    adapters: tuple[Adapter, ...] = ADAPTERS,
    modes: tuple[Mode, ...] = MODES,
    backends: tuple[Backend, ...] = ("postgresql",),
) -> pytest.MarkDecorator:
    """Run a test with each of these applications."""
    found = [Kind(a, m, b) for b in backends for a in adapters for m in modes]
    return pytest.mark.parametrize("stack", found, ids=str, indirect=True, scope="session")


on_postgresql = kinds()
everywhere = kinds(backends=("postgresql", "sqlite"))
