"""The browser of the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.chromium import HOW_TO_GET_IT, Browser

if TYPE_CHECKING:
    from pathlib import Path


def test_without_a_browser_its_tests_fail_and_say_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=f"chromium and chromedriver not found: {HOW_TO_GET_IT}"):
        Browser(tmp_path)
