"""The page of the log lines has each line of the package, with its level, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "critical"}


def written() -> set[tuple[str, str]]:
    """Level and text of each line in the code; those of `log()` have a level that is computed."""
    lines: set[tuple[str, str]] = set()
    for path in (ROOT / "reviewpoint_db").rglob("*.py"):
        if "testing" in path.parts:  # for tests, which show them when they fail
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="logger"), attr="log"),
                    args=[_, ast.Constant(value=str(text)), *_],
                ):
                    lines.add(("by", text))
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="logger"), attr=level),
                    args=[ast.Constant(value=str(text)), *_],
                ) if level in LEVELS:
                    lines.add((level.upper(), text))
    return lines


def test_each_log_line_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "log-lines.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| (\w+)[\w ]* \| `(.+?)` \|", page, re.MULTILINE)
    assert len(written()) > 40
    assert set(told) == written()
