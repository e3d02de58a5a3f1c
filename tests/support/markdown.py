"""The fenced blocks of a Markdown page, as tests run them.

| block                      | what a test does with it                                            |
|----------------------------|---------------------------------------------------------------------|
| any with `title="name"`    | writes it to the file of this name, in the page's folder            |
| `python`                   | runs it; all of a page share one namespace, and may `await`         |
| `console`                  | runs the lines that begin with `$ `, compares what stands after them |
| `text` with `title="Output"` | compares it with what the block before it printed                 |
| `json`, `toml`, `yaml`     | parses it                                                           |
| any other                  | nothing: it is shown only                                           |

`...` in an output stands for anything. A block inside an HTML comment is run and not shown. One below
`<!-- not run: reason -->` is shown and not run.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_FENCE = re.compile(r"(?P<indent> *)```(?P<language>[\w-]*)(?P<rest>.*)")
_TITLE = re.compile(r'title="([^"]+)"')
_NOT_RUN = re.compile(r"\s*<!-- not run: (.+) -->")


class Block(NamedTuple):
    """One fenced block.

    Args:
        language: The word after the backticks.
        text: What is in it, without its indentation.
        line: The page's line with its first line.
        title: Of a file, or "Output".
        not_run: Why it is not run.
    """

    language: str
    text: str
    line: int
    title: str | None = None
    not_run: str | None = None


class Command(NamedTuple):
    """One command of a console block, and what it prints; None where the page does not say."""

    line: str
    output: str | None


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    blocks: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.fullmatch(lines[number])
        if fence is None:
            number += 1
            continue
        begin = number + 1
        end = begin
        while lines[end].strip() != "```" or not lines[end].startswith(fence["indent"]):
            end += 1
        before = next((line for line in reversed(lines[: begin - 1]) if line.strip()), "")
        title, reason = _TITLE.search(fence["rest"]), _NOT_RUN.fullmatch(before)
        blocks.append(
            Block(
                fence["language"],
                textwrap.dedent("\n".join(lines[begin:end])) + "\n",
                begin + 1,
                title[1] if title else None,
                reason[1] if reason else None,
            )
        )
        number = end + 1
    return blocks


def commands_of(text: str) -> list[Command]:
    """The commands of a console block."""
    commands: list[Command] = []
    joined = text.replace("\\\n", " ")
    for part in re.split(r"(?m)^\$ ", joined)[1:]:
        line, _, output = part.partition("\n")
        commands.append(Command(line.strip(), output.strip() or None))
    return commands


def matches(expected: str, actual: str) -> bool:
    """Whether an output is the expected one, in which `...` stands for anything."""

    def tidy(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip().splitlines())

    pattern = re.escape(tidy(expected)).replace(r"\.\.\.", ".*?")
    return re.fullmatch(pattern, tidy(actual), re.DOTALL) is not None
