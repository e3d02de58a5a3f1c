"""Every block of code in README.md and docs/ does what its page says."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from importlib.metadata import version
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are one more dependency
from packaging.requirements import Requirement

from tests.support.markdown import Block, Command, blocks_of, commands_of, matches
from tests.support.programs import Program, Served, Snippets
from tests.support.server import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Pages whose code other tests run.
ELSEWHERE = {
    "docs/how-to/sqladmin.md": "tests/docs/test_sqladmin.py",
    "docs/how-to/testing.md": "tests/docs/test_testing.py",
    "docs/reference/metrics.md": "tests/docs/test_reference.py",
}
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if str(page.relative_to(ROOT)) not in ELSEWHERE and blocks_of(page)
]
# What the pages call the server and the database; a test puts its own in their place.
ADDRESSES = ("localhost:8000", "127.0.0.1:8000")
URL = "postgresql://reviewpoint:secret@localhost/reviewpoint"
SAFE_URL = URL.replace("secret", "***")
_NOT_INHERITED = ("PYTEST_", "REVIEWPOINT_", "DATABASE_URL", "LITESTAR_")


class Reader:
    """Somebody who does what a page says, in a folder of its own."""

    def __init__(self, page: Path, folder: Path, url: str | None) -> None:
        self.name = str(page.relative_to(ROOT))
        self.folder = folder
        self.url = url
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
        }
        self.environment["PYTHONPATH"] = str(ROOT)
        self.server: Served | None = None
        self.snippets: Snippets | None = None
        self.printed = ""
        self.failure = ""
        self.status = 0

    def close(self) -> None:
        if self.snippets is not None:
            self.snippets.close()
        self.stop_server()

    def stop_server(self) -> None:
        if self.server is not None:
            server, self.server = self.server, None
            server.program.stop()
            assert "Warning" not in server.program.log

    def follow(self, block: Block) -> None:
        if block.title == "Output":
            self.compare(block.text, self.printed, f"{self.name}:{block.line}")
        elif block.title is not None:
            file = self.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.ours(block.text))
        elif block.language == "python":
            if self.snippets is None:
                self.snippets = Snippets(folder=self.folder, environment=self.environment)
            self.printed = self.snippets.run(
                self.ours(block.text),
                name=self.name,
                line=block.line,
                environment=self.environment,
            )
        elif block.language == "console":
            for command in commands_of(block.text):
                self.type(command, f"{self.name}:{block.line}: {command.line}")
        elif block.language in PARSERS:
            PARSERS[block.language](block.text)

    def type(self, command: Command, where: str) -> None:
        words = shlex.split(self.ours(command.line))
        environment = dict(self.environment)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        program, *arguments = words
        if program == "echo" and arguments == ["$?"]:
            printed, self.status = str(self.status), 0
        elif self.status:
            pytest.fail(f"before {where}: {self.printed}{self.failure}", pytrace=False)
        elif program == "pip":
            printed = require(arguments)
        elif program == "export":
            self.environment |= dict(word.split("=", 1) for word in arguments)
            return
        elif program == "unset":
            for word in arguments:
                self.environment.pop(word)
            return
        elif program == "curl":
            printed = curl(arguments)
        elif program == "uvicorn":
            self.stop_server()
            self.server = Served(arguments, folder=self.folder, environment=environment)
            return
        else:
            running = Program(program, arguments, folder=self.folder, environment=environment)
            self.status = running.wait()
            printed = running.output
            if self.status:
                self.failure = running.log
        self.printed = printed
        if command.output is not None:
            self.compare(command.output, printed, where)

    def ours(self, text: str) -> str:
        """Put this test's addresses in the place of the page's."""
        if self.server is not None:
            for address in ADDRESSES:
                text = text.replace(address, f"127.0.0.1:{self.server.port}")
        return text.replace(URL, self.url) if self.url else text

    def compare(self, expected: str, printed: str, where: str) -> None:
        printed = self.theirs(printed)
        if not matches(self.theirs(expected), printed):
            pytest.fail(f"{where} printed\n{printed}\ninstead of\n{expected}", pytrace=False)

    def theirs(self, text: str) -> str:
        """Put the page's addresses in the place of this test's."""
        if self.server is not None:
            text = text.replace(f"127.0.0.1:{self.server.port}", ADDRESSES[1])
        if self.url:
            from reviewpoint_db import DatabaseConfig

            text = text.replace(DatabaseConfig(url=self.url).safe_url, SAFE_URL)
        return text


PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
}


def require(arguments: list[str]) -> str:
    """Say no when `pip install ...` would bring something that the tests do not have."""
    command, *names = arguments
    assert command == "install"
    for name in names:
        requirement = Requirement(name)
        assert requirement.specifier.contains(version(requirement.name))
        if requirement.name == "reviewpoint-db":
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert requirement.extras <= project["optional-dependencies"].keys()
    return ""


def curl(arguments: list[str]) -> str:
    """What curl prints; it need not be installed where the tests run."""
    method, headers, data, show_head, url = None, {}, None, False, ""
    words = iter(arguments)
    for word in words:
        if word == "-i":
            show_head = True
        elif word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(":")
            headers[name] = value.strip()
        elif word == "-u":
            headers["Authorization"] = httpx.BasicAuth(*next(words).split(":"))._auth_header
        elif word == "--json":
            data = next(words)
            headers |= {"Content-Type": "application/json", "Accept": "application/json"}
        elif word != "-s":
            assert not word.startswith("-"), f"curl {word} is not known here"
            url = word if "://" in word else f"http://{word}"
    method = method or ("GET" if data is None else "POST")
    answer = httpx.request(method, url, headers=headers, content=data, timeout=20)
    head = ""
    if show_head:
        lines = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
        head = f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}\n{lines}\n"
    return head + answer.text


@pytest.fixture
def reader(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Reader]:
    # A server is started only where the page speaks of one.
    url = request.getfixturevalue("postgres_url") if URL in page.read_text() else None
    reader = Reader(page, tmp_path, url)
    yield reader
    reader.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page: Path, reader: Reader) -> None:
    for block in blocks_of(page):
        if block.not_run is None:
            reader.follow(block)
    assert reader.status == 0, reader.failure


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_of_a_page_is_overlooked(page: Path) -> None:
    blocks = blocks_of(page)
    for number, block in enumerate(blocks):
        where = f"{page.name}:{block.line}"
        # `sh` or `py`, say, would be shown and not run.
        assert block.language in {"python", "console", "text", "diff", "ini", *PARSERS}, where
        if block.title is not None and block.title.endswith(".py"):
            name = block.title.removesuffix(".py").partition("/")[0]
            users = [other.text for other in blocks[number + 1 :]]
            assert any(name in text for text in users), f"{where}: unused"


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_the_other_pages_have_a_test_of_their_own(page: str, test: str) -> None:
    assert page.rpartition("/")[2] in (ROOT / test).read_text()


@pytest.mark.parametrize(
    "page", [ROOT / name for name in ("README.md", "CONTRIBUTING.md")], ids=str
)
def test_links_outside_of_the_site_lead_to_files(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)", page.read_text()):
        assert (ROOT / link).is_file(), link


def test_what_is_not_run_says_why() -> None:
    reasons = [block.not_run for page in PAGES for block in blocks_of(page) if block.not_run]
    assert all(len(reason) > 10 for reason in reasons)
    assert len(reasons) <= 3
