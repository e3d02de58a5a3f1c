"""Write the tables of docs/reference/settings.md: `python -m tools.settings_page`.

Name, default and variable come from the structs, the text from the `Args:` of their docstrings. What
stands around the tables stays as it is. A test fails while the page is not what this would write.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Final

import msgspec

from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.pool_config import ByEnvironment

__all__ = ["PAGE", "renewed"]

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"
_HEAD: Final = "| field | default | variable | |\n|---|---|---|---|\n"
_TABLE: Final = re.escape(_HEAD) + r"(?:\|.*\n)*"
#: Where the variable is not the prefix and the field's name.
_VARIABLES: Final = {
    "environment": "`REVIEWPOINT_ENVIRONMENT`",
    "pool": "`REVIEWPOINT_DB_POOL_…`",
    "session_class": "only in code",
}


def renewed(page: str) -> str:
    """Return the page with its tables made anew.

    Args:
        page: The page's text, with the table of `DatabaseConfig` before that of `PoolConfig`.
    """
    tables = [_table(DatabaseConfig, "REVIEWPOINT_DB_"), _table(PoolConfig, "REVIEWPOINT_DB_POOL_")]
    fresh = iter(tables)
    renewed_page, found = re.subn(_TABLE, lambda _: next(fresh), page)
    assert found == len(tables)
    return renewed_page


def _table(struct: type[msgspec.Struct], prefix: str) -> str:
    texts = _texts(struct)
    rows = []
    for field in msgspec.structs.fields(struct):
        variable = _VARIABLES.get(field.name, f"`{prefix}{field.name.upper()}`")
        rows.append(f"| `{field.name}` | {_default(field)} | {variable} | {texts[field.name]} |\n")
    return _HEAD + "".join(rows)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{field.default_factory()!r}`"
    return (
        "by the environment" if isinstance(field.default, ByEnvironment) else f"`{field.default!r}`"
    )


def _texts(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What the docstring says of each field, in one line each."""
    arguments = re.search(r"^Args:\n((?:    .*\n)+)", inspect.getdoc(struct) or "", re.MULTILINE)
    assert arguments is not None
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments[1], re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
