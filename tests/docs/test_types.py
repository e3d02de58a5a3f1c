"""What the documentation says to write passes a strict type checker."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.markdown import blocks_of

PAGES = Path(__file__).parents[2] / "docs"

#: What an application asks of a module that forwards, and mypy of it.
USE = """
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from src.core import database
from src.core.database import _connection_failures, db_healthcheck, get_async_session


async def use() -> None:
    async with get_async_session() as session:
        assert_type(session, AsyncSession)
    assert_type(await db_healthcheck(), bool)
    assert_type(database.engine, AsyncEngine | None)
    assert_type(_connection_failures, int)
    database.engine = None
"""


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_a_module_that_forwards_to_ours_has_types(tmp_path: Path) -> None:
    files = {block.title: block.text for block in blocks_of(PAGES / "how-to" / "coming-from.md")}
    module = "src/core/database.py"
    for name, text in ((module, files[module]), ("src/use.py", USE)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "-m", "src.core.database", "-m", "src.use"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "Success: no issues found in 2 source files\n", done.stdout + done.stderr
