"""Switching the package's log lines on, and sending them on to the standard library."""

from __future__ import annotations

import logging
import re
import textwrap
from pathlib import Path

import pytest
from loguru import logger

from reviewpoint_db import logs
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.default_log import log_worker_info


def test_the_package_is_silent_until_it_is_switched_on() -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level=0)
    try:
        logs.disable()
        log_worker_info()
        assert not lines
        logs.enable()
        log_worker_info()
        assert len(lines) == 1
    finally:
        logger.remove(sink)
        logs.disable()


def test_the_lines_of_the_docstring_route_into_standard_logging(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert logs.__doc__ is not None
    code = textwrap.dedent(logs.__doc__[logs.__doc__.index("    import logging") :])
    # The sinks of this process are the other tests'.
    monkeypatch.setattr(type(logger), "remove", lambda *_: None)
    sinks = set(logger._core.handlers)  # type: ignore[attr-defined]
    exec(code, {})
    monkeypatch.undo()
    (added,) = set(logger._core.handlers) - sinks  # type: ignore[attr-defined]
    logs.enable()
    try:
        with caplog.at_level(logging.DEBUG, "reviewpoint_db.default_log"):
            log_worker_info()
    finally:
        logger.remove(added)
        logs.disable()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("reviewpoint_db.default_log", "DEBUG")
    assert record.getMessage().startswith("Worker: ")


async def test_what_sqlalchemy_says_of_a_pool_can_be_silenced_as_the_page_says(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "reference" / "log-lines.md").read_text()
    silence = re.search(r"`(logging\.getLogger\(\"(.+)\"\)\.setLevel\(.+\))`", page)
    assert silence is not None
    caplog.set_level(logging.INFO)
    said: list[int] = []
    async with Database(DatabaseConfig(url=sqlite_url, environment="test")) as database:
        pool = logging.getLogger(silence[2])
        for line in ("", silence[1]):
            exec(line, {"logging": logging})
            async with database.engine.connect() as connection:
                await connection.invalidate()
            said.append(len([one for one in caplog.records if one.name == pool.name]))
    assert pool.level == logging.WARNING
    pool.setLevel(logging.NOTSET)
    assert said == [1, 1]
    assert caplog.records[0].getMessage().startswith("Invalidate connection <")
