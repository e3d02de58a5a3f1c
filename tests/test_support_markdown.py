"""The blocks of a page are found, and outputs compared, as tests/support/markdown.py says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.markdown import Command, blocks_of, commands_of, matches

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """
# A page

```python title="app.py"
a = 1
```

<!-- Hidden.
```console
$ run
```
-->

    ```text title="Output"
    indented

      more
    ```

<!-- not run: it needs a cloud -->
```console
$ cloud
```
"""


def test_blocks_have_language_title_line_and_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    program, hidden, output, skipped = blocks_of(page)
    assert program[:4] == ("python", "a = 1\n", 5, "app.py")
    assert hidden[:2] == ("console", "$ run\n")
    assert output[:2] == ("text", "indented\n\n  more\n")
    assert output.title == "Output"
    assert skipped.not_run == "it needs a cloud"
    assert [block.not_run for block in (program, hidden, output)] == [None] * 3


def test_a_command_has_the_lines_up_to_the_next_as_its_output() -> None:
    text = "$ one \\\n  --more\n$ two\n{\n}\n"
    assert commands_of(text) == [Command("one    --more", None), Command("two", "{\n}")]


@pytest.mark.parametrize(
    ("expected", "actual", "equal"),
    [
        ("42", "42\n", True),
        ("42", "421", False),
        ("{...}", '{"a":\n1}', True),
        ("a...b", "ab", True),
        ("a.c", "abc", False),
        ("a", "a \n", True),
        ("", "surplus", False),
    ],
)
def test_three_dots_stand_for_anything(expected: str, actual: str, equal: bool) -> None:
    assert matches(expected, actual) is equal
