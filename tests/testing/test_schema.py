"""What fills the tests' database ends in time."""

from __future__ import annotations

import threading

import pytest

from reviewpoint_db.testing.schema import _in_a_thread


def test_migrations_that_do_not_end_are_an_error() -> None:
    released = threading.Event()

    def wait() -> None:
        released.wait(10)

    with pytest.raises(
        TimeoutError, match=r"did not end within 0\.05 s\. Does one wait for a lock"
    ):
        _in_a_thread(wait, 0.05)
    released.set()
