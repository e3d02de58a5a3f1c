"""The reference of the live page names all that its document has, and every state."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import msgspec

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.endpoints.finding import State
from reviewpoint_db.endpoints.headline import Headline
from reviewpoint_db.endpoints.live import live_figures
from reviewpoint_db.endpoints.report import (
    Blocking,
    HolderReport,
    HostReport,
    Notice,
    Statement,
    Waiter,
)
from reviewpoint_db.history import Gauges, Sample

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "reference" / "live.md").read_text()
NAMED = set(re.findall(r"`(\w+)`", PAGE))


async def test_every_key_and_field_is_named(sqlite_url: str) -> None:
    database = Database(DatabaseConfig(url=sqlite_url, environment="dev"))
    document = json.loads((await live_figures(database)).body)
    structs: tuple[type[msgspec.Struct], ...] = (
        Headline, Gauges, HolderReport, HostReport, Waiter, Blocking, Sample, Statement, Notice
    )  # fmt: skip
    fields = {name for struct in structs for name in struct.__struct_fields__}
    assert {*document, *fields, *document["workers"][0]} - NAMED == set()


def test_every_state_has_its_sentence() -> None:
    sentences = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE))
    assert {*get_args(State), "lost"} <= set(sentences)


def test_its_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"\]\(\.\./(assets/[\w.-]+)\)", PAGE)
    assert len(pictures) == 2
    for picture in pictures:
        data = (DOCS / picture).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) < 150_000
