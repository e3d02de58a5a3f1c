"""LSNs: positions in PostgreSQL's write-ahead log, as integers that can be compared.

https://www.postgresql.org/docs/current/datatype-pg-lsn.html
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_LSN", "parse_lsn"]

#: Greater than any LSN: what must be seen is on the primary only, as far as is known.
MAX_LSN: Final = (1 << 64) - 1


def parse_lsn(text: str) -> int:
    """Read an LSN as PostgreSQL writes it: `16/B374D848`."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)
