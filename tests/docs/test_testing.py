"""The page "Testing your app": its project, as it stands there, passes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.server import ROOT
from tests.testing.conftest import OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs" / "how-to" / "testing.md").read_text()
FILES = dict(re.findall(r'```\w+ title="([\w.]+)"\n(.*?)```', PAGE, re.DOTALL))

MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
"""
APP = """
from litestar import Litestar, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from myapp.models import Book
from reviewpoint_db import ReviewPointDBPlugin
from sqlalchemy.ext.asyncio import AsyncSession

@post("/books/{title:str}")
async def create(title: FromPath[str], db_session: NamedDependency[AsyncSession]) -> None:
    db_session.add(Book(title=title))
    await db_session.commit()

def create_app() -> Litestar:
    return Litestar([create], plugins=[ReviewPointDBPlugin()])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "myapp").mkdir()
    for name, text in {"models": MODELS, "app": APP, "__init__": ""}.items():
        (tmp_path / "myapp" / f"{name}.py").write_text(text)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(("kind", "workers"), [("sqlite", []), ("postgres", ["-n2"])])
def test_the_project_on_the_page_passes(
    folder: Path, request: pytest.FixtureRequest, kind: str, workers: list[str]
) -> None:
    database_url = request.getfixturevalue(f"{kind}_url")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, "-q", *workers],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "REVIEWPOINT_DB_URL": database_url,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "5 passed" in done.stdout, done.stdout + done.stderr
