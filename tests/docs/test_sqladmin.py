"""The recipe for sqladmin, as it stands in the documentation, under a real server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.server import ROOT, AsgiServer

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "docs" / "how-to" / "sqladmin.md"
PROGRAMS = dict(
    zip(
        ["litestar", "fastapi"],
        re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL),
        strict=True,
    )
)


@pytest.mark.parametrize("framework", PROGRAMS)
def test_sqladmin_writes_and_lists_rows_by_the_same_engine(
    framework: str, tmp_path: Path, database_url: str
) -> None:
    (tmp_path / "program.py").write_text(PROGRAMS[framework])
    environment = {"REVIEWPOINT_DB_URL": database_url, "REVIEWPOINT_ENVIRONMENT": "dev"}
    with (
        AsgiServer("program:app", env=environment, folder=tmp_path) as server,
        httpx.Client(base_url=server.url, follow_redirects=True, timeout=20) as http,
    ):
        home = http.get("/admin")
        assert home.status_code == 200
        assert f"{server.url}/admin/book/list" in home.text
        for asset in re.findall(r'(?:href|src)="([^"]*/statics/[^"]*)"', home.text):
            assert http.get(asset).status_code == 200

        saved = http.post("/admin/book/create", data={"title": "Dune", "save": "Save"})
        assert saved.url.path == "/admin/book/list"
        assert "Dune" in saved.text
        edited = http.post("/admin/book/edit/1", data={"title": "Emma", "save": "Save"})
        assert edited.status_code == 200
        listed = http.get("/admin/book/list").text
        assert "Emma" in listed
        assert "Dune" not in listed

        debug = http.get("/db/debug").json()
        assert debug["engine_creation_count"] == 1
        assert debug["pool_checked_out"] == 0
        assert debug["totals"]["acquired"] > 3
