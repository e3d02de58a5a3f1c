"""The application that `--app module:attribute` names, and its databases."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ConfigurationError

__all__ = ("databases_of", "load_application")


def load_application(app_path: str) -> Any:
    """Import what `module:attribute` names; a factory is called."""
    module_name, _, attribute = app_path.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = importlib.import_module(module_name)
        for name in (attribute or "app").split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        msg = f"--app {app_path} was not found ({error}). Give it as module:attribute."
        raise click.UsageError(msg) from error
    is_target = isinstance(found, Database | DatabaseConfig) or hasattr(found, "state")
    return found() if callable(found) and not is_target else found


def databases_of(app: Any) -> list[Database]:
    """Return the databases of an application, or what was given in its place.

    Raises:
        ConfigurationError: It has none.
    """
    if isinstance(app, Database):
        return [app]
    if isinstance(app, DatabaseConfig):
        return [Database(app)]
    databases = getattr(app.state, "databases", None)
    if not databases:
        msg = (
            "The application has no database. Install one with ReviewPointDBPlugin or "
            "setup_database."
        )
        raise ConfigurationError(msg)
    return list(databases.values())
