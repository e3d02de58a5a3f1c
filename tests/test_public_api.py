"""What the package offers, and what importing it brings along."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import reviewpoint_db
from tests.support.commands import printed_by

PUBLIC = {
    "Activity",
    "ActivitySnapshot",
    "CheckResult",
    "CommitMode",
    "CommitOutcomeUnknownError",
    "ConfigurationError",
    "Database",
    "DatabaseConfig",
    "DatabaseUnavailableError",
    "Environment",
    "HealthReport",
    "PoolConfig",
    "PoolTimeoutError",
    "QueryTimeoutError",
    "ReadOnlySessionError",
    "ReviewPointDBError",
    "ReviewPointDBPlugin",
    "SessionClosedError",
    "UnavailableError",
    "UnitOfWork",
    "after_commit",
    "check_health",
    "configure",
    "normalize_url",
}
ORIGINAL = {
    "AsyncSessionLocal",
    "ConnectionDebugInfo",
    "_connection_failures",
    "_creation_lock",
    "_engine_creation_count",
    "_log_engine_pool_state",
    "_log_worker_info",
    "_session_creation_count",
    "db_healthcheck",
    "engine",
    "ensure_engine_initialized",
    "get_async_session",
    "get_connection_debug_info",
    "get_engine_and_sessionmaker",
}


def test_the_public_names_are_these() -> None:
    assert set(reviewpoint_db.__all__) == PUBLIC | ORIGINAL
    assert set(reviewpoint_db.__all__) <= set(dir(reviewpoint_db))


def test_every_public_name_can_be_imported() -> None:
    printed_by(
        "from reviewpoint_db import *; ReviewPointDBPlugin, get_async_session, _creation_lock"
    )


def test_importing_the_package_imports_no_framework_and_no_command_line() -> None:
    code = "import reviewpoint_db, sys, json; print(json.dumps(list(sys.modules)))"
    modules = {name.partition(".")[0] for name in json.loads(printed_by(code))}
    assert not modules & {
        "litestar",
        "starlette",
        "fastapi",
        "click",
        "rich",
        "pytest",
        "advanced_alchemy",
        "alembic",
        "prometheus_client",
        "opentelemetry",
    }


_WATCHED = """
import collections, os, loguru

class Watched(collections.UserDict):
    asked = set()

    def __getitem__(self, name):
        self.asked.add(name)
        return super().__getitem__(name)

    def __contains__(self, name):
        self.asked.add(name)
        return super().__contains__(name)

os.environ = Watched(os.environ)
import reviewpoint_db

reviewpoint_db._log_worker_info.__globals__["worker_id"] = lambda: "main"
reviewpoint_db._log_worker_info()
for name in sorted(Watched.asked):
    if name.startswith(("REVIEWPOINT", "DATABASE", "PYTEST")):
        print(name)
"""


def test_importing_reads_no_settings_and_says_nothing() -> None:
    """Libraries may ask for variables of their own; ours are read when a configuration is made."""
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED], check=True, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        reviewpoint_db.no_such_name  # noqa: B018


def test_the_plugin_is_loaded_when_it_is_asked_for() -> None:
    from reviewpoint_db.litestar import ReviewPointDBPlugin

    assert reviewpoint_db.ReviewPointDBPlugin is ReviewPointDBPlugin
