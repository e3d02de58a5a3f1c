"""The contract's rows on PostgreSQL hold for a primary with a replica too.

None is left out. Adapted are: the row that reads after it has written, which waits until the standby has
replayed that and is what read sessions use; reads while the primary is away, which are answered (the
standby is not behind the relay); and what exhausts the primary's pool, which is not read sessions.
"""

from __future__ import annotations

import pytest

from tests.support.contract import contract_holds


@pytest.mark.parametrize(
    "kinds",
    ["litestar-manual", "litestar-autocommit", "starlette-autocommit", "fastapi-manual"],
)
def test_the_contract_holds_with_a_replica(kinds: str) -> None:
    """One adapter in both modes, the others in one; each in a pytest of its own."""
    contract_holds("replica", f"{kinds}-postgresql", at_least=75)
