"""The contract's load, for 20 s, on each application that tests/contract/test_load.py shortens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.conftest import world_of
from tests.contract.stack import ADAPTERS, MODES, Kind
from tests.contract.test_load import LOADS, no_answer_lies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.world import World
    from tests.support.run import Run

SECONDS = 20.0
KINDS = [
    kind
    for adapter in ADAPTERS
    for mode in MODES
    if LOADS.get(kind := Kind(adapter, mode), 0) < SECONDS
]


@pytest.fixture(scope="module")
def world(run: Run) -> Iterator[World]:
    with world_of(run, "load") as world:
        yield world


@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_under_load_and_restarts_no_answer_lies(kind: Kind, world: World) -> None:
    await no_answer_lies(kind, SECONDS, world)
