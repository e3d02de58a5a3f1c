"""The reference names every route, command, system check, event and error; and no other."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import tomllib
from pathlib import Path
from typing import get_args

import click
import pytest

import reviewpoint_db
from reviewpoint_db import activity, checks, errors, sqlstate
from reviewpoint_db.cli import main, migration_commands
from reviewpoint_db.endpoints.routes import ROUTES
from tools.settings_page import PAGE, renewed

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def first_column(page: str, pattern: str) -> dict[str, str]:
    """The lines of a page's tables by what is in their first column."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    return dict(re.findall(rf"^\| `{pattern}` \|(.*)$", text, re.MULTILINE))


def test_each_route_is_documented_with_who_may_see_it() -> None:
    told = first_column("routes.md", r"GET /db(/\S*)")
    assert set(told) == {route.path for route in ROUTES}
    for route in ROUTES:
        who = "guarded" if route.guarded else "anyone"
        assert told[route.path].startswith(f" {who} |"), route.path


def test_each_command_is_documented() -> None:
    context = click.Context(main)
    own = {*main.commands, *migration_commands.list_commands(context)}
    assert set(first_column("commands.md", r"([a-z-]+)")) - {"--app", "--migrations"} == own


@pytest.mark.parametrize("command", [main, *map(main.commands.__getitem__, ("check", "health"))])
def test_each_option_of_our_commands_is_documented(command: click.Command) -> None:
    page = (REFERENCE / "commands.md").read_text(encoding="utf-8")
    options = [name for option in command.params for name in option.opts]
    assert options
    for option in options:
        assert f"`{option}" in page, option


def test_each_system_check_is_documented() -> None:
    ids = set(re.findall(r"RPDB\d{3}", inspect.getsource(checks)))
    assert set(first_column("checks.md", r"(RPDB\d{3})")) == ids


def test_each_event_is_documented() -> None:
    assert set(first_column("events.md", r"(db\.\w+)")) == set(get_args(activity.Event))


def test_each_error_is_documented_with_its_class_of_sqlalchemy() -> None:
    told = first_column("errors.md", r"(\w+Error)")
    assert set(errors.__all__) <= set(told)
    for name in errors.__all__:
        row = told[name]
        bases = {
            base.__name__
            for base in getattr(errors, name).__mro__
            if base.__module__ == "sqlalchemy.exc"
        }
        also = re.match(r" `(\w+)` \|", row)
        assert (also[1] in bases) if also else not bases, name


def test_each_exception_that_can_be_met_is_documented_with_what_to_do() -> None:
    """Whatever module it is of; those whose name is no error's are turned into others."""
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    found = set()
    for module in pkgutil.walk_packages(reviewpoint_db.__path__, "reviewpoint_db."):
        for name, thing in inspect.getmembers(
            importlib.import_module(module.name), inspect.isclass
        ):
            if issubclass(thing, Exception) and thing.__module__.startswith("reviewpoint_db."):
                found.add(name)
    public = {name for name in found if name.endswith("Error") and not name.startswith("_")}
    assert public > set(errors.__all__), "no other module was looked at"
    assert {name for name in public if f"`{name}`" not in page} == set()
    for row in first_column("errors.md", r"(\w+Error)").values():
        *_, to_do, end = row.split("|")
        assert (len(to_do.strip()) > 5, end) == (True, ""), row


def test_each_code_that_is_told_apart_is_documented() -> None:
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    own = (value for name, value in vars(sqlstate).items() if name.isupper())
    codes = {
        code
        for value in own
        for code in ([value] if isinstance(value, str) else value)
        if re.fullmatch(r"[0-9A-Z]{5}|SQLITE_[A-Z_]+", str(code))
    }
    assert len(codes) > 15
    assert {code for code in codes if f"`{code}`" not in page} == set()


def test_each_dependency_is_documented_with_its_reason() -> None:
    project = tomllib.loads((REFERENCE.parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    page = "../explanation/dependencies.md"
    needed = {re.split(r"[><=]", requirement)[0] for requirement in project["dependencies"]}
    told = first_column(page, r"([\w\[\]-]+)")
    assert set(told) == needed | set(extras)
    for extra, requirements in extras.items():
        for requirement in requirements:
            assert f"`{re.split(r'[><=]', requirement)[0]}`" in told[extra], requirement


def test_the_tables_of_the_settings_are_those_of_the_structs() -> None:
    """Else run `python -m tools.settings_page`."""
    page = PAGE.read_text(encoding="utf-8")
    assert renewed(page) == page


def test_each_public_name_is_on_the_page_of_the_api() -> None:
    page = (REFERENCE / "api.md").read_text(encoding="utf-8")
    told = set(re.findall(r"\w+", page)) | set(errors.__all__)
    assert {name for name in reviewpoint_db.__all__ if not name.startswith("_")} <= told
