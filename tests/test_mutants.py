"""The mutants are not stale: what each removes is there, once."""

from __future__ import annotations

from pathlib import Path

import pytest

import reviewpoint_db
from tests.mutants import MUTANTS, Mutant

PACKAGE = Path(reviewpoint_db.__file__).parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_it_removes_is_there(mutant: Mutant) -> None:
    assert (PACKAGE / mutant.file).read_text().count(mutant.old) == 1
