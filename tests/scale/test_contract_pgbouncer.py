"""The contract's rows on PostgreSQL hold through PgBouncer in transaction mode too.

None is left out. One is adapted: after an application's end the server still has sessions with its
name, since PgBouncer keeps them for whoever comes next.
"""

from __future__ import annotations

import pytest

from tests.contract.stack import ADAPTERS
from tests.support.contract import contract_holds

#: The adapter that meets a PgBouncer which tracks prepared statements; the others meet the installed one.
TRACKING = "starlette"


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_contract_holds_through_pgbouncer(
    adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each adapter with its share of the suite, in a pytest of its own."""
    if adapter == TRACKING:
        monkeypatch.setenv("CONTRACT_TRACKING", "1")
    contract_holds("pgbouncer", f"{adapter} and postgresql", at_least=150)
