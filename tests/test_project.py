"""What the project's files promise about versions, addresses and the wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.server import AsgiServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

PROGRAM = """
from litestar import Litestar, get
from reviewpoint_db import ReviewPointDBPlugin
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

@get("/")
async def index(db_session: AsyncSession) -> dict[str, int]:
    return {"answer": (await db_session.execute(text("select 42"))).scalar_one()}

app = Litestar(route_handlers=[index], plugins=[ReviewPointDBPlugin()])
"""


#: Works with SQLAlchemy 2.0 only: the newest versions go without it.
LOWEST_ONLY = "sqlalchemy-cockroachdb"


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text().splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w.-]+==[\w.]+", line), f"{name}: {line}"
    pairs = (line.split("==") for line in lines)
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def requirements(*, tools: bool) -> list[Requirement]:
    """What users install, and what the tests need; with the tools for developers too."""
    groups = PROJECT["dependency-groups"]
    names = groups if tools else ("run", "test", "lowest")
    project = PROJECT["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
        *(line for name in names for line in groups[name] if isinstance(line, str)),
    ]
    found = [Requirement(line) for line in lines]
    return [one for one in found if not tools or one.name != LOWEST_ONLY]


@pytest.mark.parametrize("requirement", requirements(tools=True), ids=str)
def test_the_newest_versions_are_pinned_within_their_ranges(requirement: Requirement) -> None:
    assert pins("constraints.txt")[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("requirement", requirements(tools=False), ids=str)
def test_the_lowest_versions_allowed_are_those_that_are_tested(requirement: Requirement) -> None:
    lowest = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    pinned = pins("constraints-lowest.txt")[canonicalize_name(requirement.name)]
    assert len(lowest) == 1, f"{requirement} needs a lower bound"
    assert pinned.release[: len(lowest[0].release)] == lowest[0].release


def tracked() -> list[str]:
    """The files of the repository."""
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listing.stdout.splitlines()


def test_no_registry_is_named_anywhere() -> None:
    pattern = re.compile(r"(index-url|find-links|files\.python" + r"hosted|pypi\.(org|io))")
    named = [
        name
        for name in tracked()
        if name != "tests/test_project.py"
        and pattern.search((ROOT / name).read_text(errors="replace"))
    ]
    assert named == []


@pytest.mark.parametrize("guide", ["CONTRIBUTING.md", "tests/contract/README.md"])
def test_the_files_that_a_guide_for_developers_names_exist(guide: str) -> None:
    text = (ROOT / guide).read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./-]+(?:\.py|\.md|\.toml|\.txt|/))`", text)) - {"build/"}
    assert len(named) > 10
    files = [f"/{name}" for name in tracked()]
    # A folder's name ends with a slash; both may be told without the folder around them.
    missing = {
        name
        for name in named
        if not any(
            f"/{name}" in file if name[-1] == "/" else file.endswith(f"/{name}") for file in files
        )
    }
    assert missing == set()


def test_every_test_of_the_contract_is_in_its_index() -> None:
    index = (ROOT / "tests/contract/README.md").read_text(encoding="utf-8")
    modules = {path.name for path in (ROOT / "tests/contract").glob("test_*.py")}
    assert modules
    assert {name for name in modules if f"`{name}`" not in index} == set()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed, without the source tree on any path."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True, capture_output=True)
    return site


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(installed: Path) -> None:
    packages = {"reviewpoint_db", "reviewpoint_db_pytest"}  # the second is the pytest plugin

    def files(root: Path) -> set[str]:
        found = (path for package in packages for path in (root / package).rglob("*"))
        names = {str(path.relative_to(root)) for path in found if path.is_file()}
        return {name for name in names if not name.endswith(".pyc")}

    assert files(installed) == files(ROOT)
    assert "reviewpoint_db/py.typed" in files(installed)
    others = {path.name for path in installed.iterdir()} - {*packages, "bin"}
    assert {name.rpartition(".")[2] for name in others} == {"dist-info"}


def test_what_an_index_shows_has_no_link_into_the_repository(installed: Path) -> None:
    (metadata,) = installed.glob("*.dist-info/METADATA")
    shown = metadata.read_text(encoding="utf-8")
    assert "Description-Content-Type: text/markdown" in shown
    assert "# reviewpoint_db" in shown
    assert len(re.findall(r"\]\(", (ROOT / "README.md").read_text(encoding="utf-8"))) > 20
    links = re.findall(r"\]\(([^)]*)\)", shown)
    assert [link for link in links if not link.startswith("https://")] == []


def test_the_sdist_holds_every_file_of_the_repository(tmp_path: Path) -> None:
    """So that the tests, the benchmarks and CI run from an unpacked archive."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {member.name.partition("/")[2] for member in opened if member.isfile()}
    assert held >= set(tracked())
    assert "PKG-INFO" in held


@pytest.fixture
def program(installed: Path, tmp_path: Path, database_url: str) -> Iterator[AsgiServer]:
    (tmp_path / "main.py").write_text(PROGRAM)
    env = {"PYTHONPATH": str(installed)}
    if database_url.startswith("postgresql"):
        env["REVIEWPOINT_DB_URL"] = database_url
    with AsgiServer("main:app", env=env, folder=tmp_path) as server:
        yield server


def test_the_first_program_answers_in_an_empty_folder(program: AsgiServer) -> None:
    assert httpx.get(program.url).json() == {"answer": 42}
    assert httpx.get(f"{program.url}/db/health").json()["status"] == "healthy"
    assert httpx.get(f"{program.url}/db/health/ready").status_code == 200
