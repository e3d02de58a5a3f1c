"""The testing kit: databases for tests, and what the pytest plugin `reviewpoint_db_pytest` gives."""

from reviewpoint_db.testing.checks import (
    StatementLog,
    assert_no_leak,
    assert_statements,
    log_test_database_state,
    verify_test_database,
)
from reviewpoint_db.testing.errors import (
    DatabaseNotRequestedError,
    SandboxError,
    SandboxEscapeError,
    TestingConfigurationError,
)
from reviewpoint_db.testing.faults import Faults

__all__ = [
    "DatabaseNotRequestedError",
    "Faults",
    "SandboxError",
    "SandboxEscapeError",
    "StatementLog",
    "TestingConfigurationError",
    "assert_no_leak",
    "assert_statements",
    "log_test_database_state",
    "verify_test_database",
]
