"""The README's program, run as it stands, answers as the README shows; its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.server import AsgiServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROGRAM = re.search(r"```python\n(.*?)```", README, re.DOTALL)
CALLS = re.findall(r"^\$ curl http://127\.0\.0\.1:8000(\S+)\n(.+)$", README, re.MULTILINE)
LINKS = re.findall(r"\]\(([^)#:]+)\)", README)


@pytest.fixture(params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AsgiServer]:
    assert PROGRAM is not None
    (tmp_path / "app.py").write_text(PROGRAM[1])
    env = {"PYTHONPATH": str(tmp_path)}
    if request.param == "postgresql":
        env["REVIEWPOINT_DB_URL"] = request.getfixturevalue("postgres_url")
    with AsgiServer("app:app", folder=tmp_path, env=env) as server:
        yield server


def test_the_program_answers_as_shown(served: AsgiServer) -> None:
    assert len(CALLS) == 2
    for path, answer in CALLS:
        assert httpx.get(served.url + path).text == answer
    assert httpx.get(f"{served.url}/db/health").json()["status"] == "healthy"
    assert httpx.get(f"{served.url}/db/").status_code == 200
    assert "Warning" not in served.log


@pytest.mark.parametrize("link", LINKS)
def test_links_lead_to_files(link: str) -> None:
    assert (ROOT / link).is_file()
