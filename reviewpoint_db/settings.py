"""Settings: how one is refused, checked, and read from environment variables."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec

from reviewpoint_db.errors import ConfigurationError

__all__ = ["PREFIX", "UrlOfFile", "check_number", "read_secret", "read_variables", "refuse"]

PREFIX = "REVIEWPOINT_DB_"
_ENVIRONMENT = "REVIEWPOINT_ENVIRONMENT"

# They may stand in a file (mounted secrets): REVIEWPOINT_DB_URL_FILE.
_SECRETS = ("url", "read_url", "read_your_writes_secret", "password")

# Read by others than the configuration.
_OTHER_VARIABLES = ("DEBUG_TOKEN", "DEBUG_TOKEN_FILE")


class UrlOfFile(str):
    """A URL that came from a file, which is read again for each connection's password.

    Args:
        text: The URL.
        variable: The environment variable that names the file.
        path: The file.
    """

    __slots__ = ("path", "variable")

    variable: str
    path: str

    def __new__(cls, text: str, variable: str, path: str) -> Self:  # noqa: D102
        made = super().__new__(cls, text)
        made.variable, made.path = variable, path
        return made

    def __getnewargs__(self) -> tuple[str, str, str]:  # type: ignore[override]
        return str(self), self.variable, self.path

    def reread(self) -> str:
        """The file's present text.

        Raises:
            ConfigurationError: It cannot be read.
        """
        return _read_file(self.variable, self.path)


def refuse(field: str, shown: object, problem: str, fix: str) -> ConfigurationError:
    """The error for a refused setting.

    Args:
        field: The setting or variable.
        shown: Its value, safe to show.
        problem: What is wrong with it.
        fix: What to do.
    """
    stop = "" if fix.endswith("?") else "."
    return ConfigurationError(f"{field} = {shown}: {problem}. Fix: {fix}{stop}")


def check_number(field: str, value: object, *, lowest: int, whole: bool = False) -> None:
    """Refuse what is no number, or too small.

    Args:
        field: The setting.
        value: Its value.
        lowest: The lowest whole number; of seconds, 1 stands for any time above zero.
        whole: A count instead of seconds.
    """
    kind, named = (int, "a whole number") if whole else (int | float, "a number of seconds")
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        raise refuse(field, repr(value), f"not {named}", f"give {named}")
    if value < lowest and (whole or lowest == 0 or value <= 0):
        bound = f"{lowest} or more" if whole or lowest == 0 else "more than 0"
        raise refuse(field, repr(value), "too small", f"give {bound}")


def read_variables(
    environ: Mapping[str, str], database: type[msgspec.Struct], pool: type[msgspec.Struct]
) -> dict[str, Any]:
    """The values that environment variables give to the fields of a database's configuration.

    Args:
        environ: The variables; an empty one counts as not set.
        database: The struct whose fields REVIEWPOINT_DB_<FIELD> names.
        pool: The struct whose fields REVIEWPOINT_DB_POOL_<FIELD> names.

    Raises:
        ConfigurationError: A variable cannot be read, or its name is nearly that of a setting.
    """
    given = {name: value for name, value in environ.items() if value.strip()}
    fields, pools = _defaults(database), _defaults(pool)
    _refuse_misspelled(given, fields, pools)
    values = _read_fields(given, PREFIX, fields)
    if in_pool := _read_fields(given, f"{PREFIX}POOL_", pools):
        values["pool"] = pool(**in_pool)
    if "url" not in values and "DATABASE_URL" in given:
        values["url"] = given["DATABASE_URL"].strip()
    if _ENVIRONMENT in given:
        values["environment"] = given[_ENVIRONMENT].strip()
    return values


def read_secret(environ: Mapping[str, str], variable: str) -> str | None:
    """The value of a variable as it is, or what is in the file that `<variable>_FILE` names.

    Args:
        environ: The variables; one set to nothing counts as not set.
        variable: Its name.

    Returns:
        The secret, of a file without the end of its last line; None where there is none.

    Raises:
        ConfigurationError: Both are set, or the file cannot be read.
    """
    given = {name: value for name, value in environ.items() if value}
    read = _read_secret(given, variable)
    return None if read is None else given.get(variable) or read()


def _defaults(struct: type[msgspec.Struct]) -> dict[str, object]:
    return {field.name: field.default for field in msgspec.structs.fields(struct)}


def _read_fields(
    given: Mapping[str, str], prefix: str, defaults: Mapping[str, object]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, default in defaults.items():
        variable = prefix + name.upper()
        if name in _SECRETS:
            if (secret := _read_secret(given, variable)) is not None:
                # A password's file is read for each connection: tokens rotate.
                values[name] = secret if name == "password" else _url_of(given, variable, secret())
        elif variable in given and name not in ("pool", "environment"):
            values[name] = _convert(variable, name, given[variable].strip(), default)
    return values


def _read_secret(given: Mapping[str, str], variable: str) -> Callable[[], str] | None:
    value, path = given.get(variable), given.get(f"{variable}_FILE")
    if value is not None and path is not None:
        raise refuse(variable, "***", f"{variable}_FILE is set too", "take one of the two out")
    if path is not None:
        read = partial(_read_file, f"{variable}_FILE", path)
        read()
        return read
    return None if value is None else value.strip


def _url_of(given: Mapping[str, str], variable: str, text: str) -> str:
    path = given.get(f"{variable}_FILE")
    return text if path is None else UrlOfFile(text, f"{variable}_FILE", path)


def _read_file(variable: str, path: str) -> str:
    problem = "the file is empty"
    try:
        text = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        problem, text = f"the file cannot be read ({type(error).__name__})", ""
    if not text:
        raise refuse(variable, repr(path), problem, "name a readable file that holds the value")
    return text


def _convert(variable: str, name: str, value: str, default: object) -> object:
    if name == "session_class":
        raise refuse(variable, repr(value), "a class cannot be named here", "give it in the code")
    if name == "engine_options":
        return _read_options(variable, value)
    kind = type(default)
    if isinstance(default, bool) or name == "pgbouncer":
        return _read_switch(variable, value)
    if not isinstance(default, int | float):
        return value
    number = _read_number(value, whole=isinstance(default, int))
    if number is None:
        named = "a whole number" if issubclass(kind, int) else "a number of seconds"
        raise refuse(variable, repr(value), f"not {named}", f"give {named}")
    return number


def _read_number(value: str, *, whole: bool) -> float | None:
    try:
        return int(value) if whole else float(value)
    except ValueError:
        return None


def _read_switch(variable: str, value: str) -> bool:
    switches = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
    switch = switches.get(value.lower())
    if switch is None:
        raise refuse(variable, repr(value), "not a switch", "give true or false")
    return switch


def _read_options(variable: str, value: str) -> object:
    try:
        options = msgspec.json.decode(value)
    except msgspec.DecodeError:
        options = None
    if not isinstance(options, dict):
        # The value is not shown: connect arguments may hold a password.
        raise refuse(variable, "***", "not a JSON object", 'write {"echo": true}')
    return options


def _refuse_misspelled(
    given: Mapping[str, str], fields: Mapping[str, object], pools: Mapping[str, object]
) -> None:
    known = {PREFIX + name.upper() for name in fields if name not in ("pool", "environment")}
    known |= {f"{PREFIX}POOL_{name.upper()}" for name in pools}
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in _SECRETS}
    known |= {PREFIX + name for name in _OTHER_VARIABLES}
    if (environment := f"{PREFIX}ENVIRONMENT") in given:
        # Taken for the real one it would leave debug open in production.
        raise refuse(environment, "***", "there is no such setting", f"set {_ENVIRONMENT}")
    for variable in given:
        if variable not in known | {_ENVIRONMENT} and variable.startswith("REVIEWPOINT_"):
            # Not every unknown name is a mistake: Kubernetes adds REVIEWPOINT_DB_PORT and others
            # for a service called reviewpoint-db, and an application may be called Reviewpoint.
            names = sorted(known) if variable.startswith(PREFIX) else [_ENVIRONMENT]
            near = difflib.get_close_matches(variable, names, n=1, cutoff=0.9)
            if near:
                raise refuse(
                    variable, "***", "there is no such setting", f"did you mean {near[0]}?"
                )
