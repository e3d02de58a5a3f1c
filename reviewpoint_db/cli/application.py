"""The application that `--app module:attribute` names, and its databases."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ConfigurationError

__all__ = ("databases_of", "load_application")

_WANTED = "a Litestar, FastAPI or Starlette application, a Database or a DatabaseConfig"


def load_application(app_path: str) -> Any:
    """Import what `module:attribute` names; a factory is called.

    Raises:
        click.UsageError: It is not there or is nothing that has a database, or the application's own
            code raised.
        ConfigurationError: Raised by the application's own code.
    """
    module_name, _, attribute = app_path.partition(":")
    found = _attribute(_module(app_path, module_name), app_path, attribute or "app")
    if not _is_target(found) and callable(found):
        found = _called(found, app_path)
    if not _is_target(found):
        raise _refuse(
            app_path, f"is of type {type(found).__name__}: name {_WANTED}, or a factory of one"
        )
    return found


def _refuse(app_path: str, problem: str) -> click.UsageError:
    return click.UsageError(f"--app {app_path} {problem}.")


def _is_target(found: object) -> bool:
    # A class is a factory.
    kinds = Database | DatabaseConfig
    return not isinstance(found, type) and (isinstance(found, kinds) or hasattr(found, "state"))


def _module(app_path: str, name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if name.endswith(".py") or "/" in name:
        dotted = ".".join(Path(name).with_suffix("").parts)
        raise _refuse(app_path, f"is a file: give its module, {dotted}:app for example")
    if not name:
        raise _refuse(app_path, "names no module: give it as module:attribute")
    try:
        return importlib.import_module(name)
    except ConfigurationError:
        raise
    except ModuleNotFoundError as error:
        # A module that it imports may be the one that is missing.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(app_path, "could not be imported", error) from error
        msg = f"was not found: there is no module {error.name} in {folder} or among the packages"
        raise _refuse(app_path, f"{msg}. Give it as module:attribute") from error
    except Exception as error:
        raise _failed(app_path, "could not be imported", error) from error


def _attribute(module: ModuleType, app_path: str, path: str) -> Any:
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            near = difflib.get_close_matches(name, dir(found), n=1)
            hint = f"Did you mean {near[0]}?" if near else "Give it as module:attribute."
            msg = f"--app {app_path} was not found: there is no {name}. {hint}"
            raise click.UsageError(msg) from error
    return found


def _called(factory: Any, app_path: str) -> Any:
    """Call a factory, which needs no arguments and is no coroutine function."""
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        msg = f"is a factory that needs arguments ({error}): name one that needs none"
        raise _refuse(app_path, msg) from error
    except ValueError:
        pass  # written in C: it has no signature
    if inspect.iscoroutinefunction(factory):
        raise _refuse(app_path, "is an async function: name one that is not, or the application")
    try:
        return factory()
    except ConfigurationError:
        raise
    except Exception as error:
        raise _failed(app_path, "raised", error) from error


def _failed(app_path: str, what: str, error: Exception) -> click.UsageError:
    """Tell an error of the application's own code, and where in that code it was."""
    if isinstance(error, SyntaxError):
        place = f"{error.filename}, line {error.lineno}"
        text = error.msg
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [one for one in frames if _is_own(Path(one.filename))]
        last = (own or frames)[-1]
        place, text = f"{last.filename}, line {last.lineno}, in {last.name}", str(error)
    return _refuse(app_path, f"{what}: {type(error).__name__}: {text} ({place})")


def _is_own(file: Path) -> bool:
    """Whether it is the application's, and no package that it uses."""
    return file.is_relative_to(Path.cwd()) and "site-packages" not in file.parts


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
            "The application has no database. Fix: install one with ReviewPointDBPlugin or "
            "setup_database."
        )
        raise ConfigurationError(msg)
    return list(databases.values())
