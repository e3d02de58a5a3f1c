"""Switching this package's log lines on.

As loguru asks of a library, the package is silent until someone speaks for the application: the
plugin and every `setup_database` call `enable()`; without them `logger.enable("reviewpoint_db")`
does the same. Two lines send everything on to the standard library's logging instead:

    import logging
    from loguru import logger

    logger.remove()
    logger.add(lambda line: logging.getLogger(line.record["name"]).log(
        line.record["level"].no, line.record["message"]))
"""

from __future__ import annotations

from typing import Final

from loguru import logger

__all__ = ("disable", "enable", "mark_as_logged")

_PACKAGE: Final = "reviewpoint_db"


def enable() -> None:
    """Let the package's log lines through, to whatever sinks the application has."""
    logger.enable(_PACKAGE)


def disable() -> None:
    """Silence the package, as it is after the import."""
    logger.disable(_PACKAGE)


def mark_as_logged(error: Exception) -> bool:
    """Note on an error that it has its line in the log, and return whether it had it before."""
    before: bool = error.__dict__.get("_reviewpoint_db_logged", False)
    error.__dict__["_reviewpoint_db_logged"] = True
    return before
