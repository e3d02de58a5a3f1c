"""What the testing kit has to say to a test.

SandboxError              a sandbox cannot do what it was asked for
└ SandboxEscapeError      something ended the sandbox's own transaction
DatabaseNotRequestedError a test, or what lasts longer than one, did not ask for the database
TestingConfigurationError the kit lacks something that the project has to give
"""

from __future__ import annotations

from reviewpoint_db.errors import ConfigurationError, ReviewPointDBError

__all__ = [
    "DatabaseNotRequestedError",
    "SandboxError",
    "SandboxEscapeError",
    "TestingConfigurationError",
]


class SandboxError(ReviewPointDBError):
    """The sandbox cannot do what it was asked for; `db_clone` can."""


class SandboxEscapeError(SandboxError):
    """A statement ended the sandbox's own transaction, so that its data was stored or lost."""


class DatabaseNotRequestedError(ReviewPointDBError):
    """A test touched the database without asking, or a fixture did that has a wider scope."""


class TestingConfigurationError(ConfigurationError):
    """The testing kit lacks something that the project has to give."""

    __test__ = False  # pytest would collect it by its name
