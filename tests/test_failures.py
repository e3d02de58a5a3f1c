"""Statements that failed lately are counted by code and handler."""

from __future__ import annotations

import pytest

from reviewpoint_db import failures as failures_module
from reviewpoint_db.failures import Failing, Failures


def test_they_are_counted_by_code_and_handler_beside_those_that_succeed() -> None:
    failures = Failures()
    assert failures.lately(done=7) == ([], 0)
    failures.note("42P01", "GET /missing", done=7)
    failures.note("57014", "GET /slow", done=8)
    failures.note("42P01", "GET /missing", done=9)
    assert failures.lately(done=10) == (
        [Failing("42P01", "GET /missing", 2), Failing("57014", "GET /slow", 1)],
        3,
    )


@pytest.mark.parametrize("code", ["23505", "SQLITE_CONSTRAINT_UNIQUE", "IntegrityError"])
def test_what_an_application_provokes_and_answers_does_not_count(code: str) -> None:
    failures = Failures()
    failures.note(code, "POST /papers", done=0)
    assert failures.lately(done=0) == ([], 0)


def test_they_count_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = Failures()
    failures.note("42P01", "GET /missing", done=7)
    monkeypatch.setattr(failures_module, "LATELY", -1.0)
    assert failures.lately(done=9) == ([], 0)
