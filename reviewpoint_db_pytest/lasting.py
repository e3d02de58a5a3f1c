"""Fixtures that last longer than a test: what they do to a database is outside of every sandbox."""

from __future__ import annotations

import re
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from reviewpoint_db.testing.kit import Kit

#: What pytest makes of setUpClass and the like.
_HIDDEN: Final = re.compile(r"_(?:unittest|xunit)_(\w+?)_fixture_(.+)")


class Lasting:
    """A plugin: refuses the database to such fixtures, or says that they stored something.

    Args:
        kit: The kit of this process.
        ours: The fixtures by which one asks for the database.
        strict: Whether the others are refused.
    """

    def __init__(self, kit: Kit, ours: Collection[str], *, strict: bool) -> None:
        self._kit = kit
        self._ours = ours
        self._strict = strict
        self._told: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Iterator[None]:
        """Look after the begin of a fixture, and after its end."""
        if fixturedef.scope == "function":
            return (yield)
        name = _name_of(fixturedef)
        asks = _asks_for(self._ours, fixturedef, request)
        beyond = partial(self._kit.beyond_a_test, name, asks=asks, strict=self._strict)
        ending = ExitStack()

        def end() -> None:
            ending.enter_context(beyond())

        fixturedef.addfinalizer(ending.close)
        try:
            with beyond() as stored:
                result = yield
        finally:
            fixturedef.addfinalizer(end)  # the last one is called first
        if stored and name not in self._told:
            self._told.add(name)
            request.node.warn(pytest.PytestWarning(stored.by(name)))
        return result


def _name_of(fixturedef: pytest.FixtureDef[Any]) -> str:
    """Return what whoever wrote a fixture calls it."""
    hidden = _HIDDEN.fullmatch(fixturedef.argname)
    if hidden is not None:
        return f"{hidden[1]} of {hidden[2]}"
    return f"The fixture {fixturedef.argname} (scope {fixturedef.scope!r})"


def _asks_for(
    names: Collection[str], fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> bool:
    """Whether a fixture is one of some, or requests one, be it by others that it requests."""
    definitions: dict[str, Any] = request._pyfuncitem._fixtureinfo.name2fixturedefs  # noqa: SLF001
    known: set[str] = set()
    waiting = [fixturedef.argname, *fixturedef.argnames]
    while waiting:
        name = waiting.pop()
        if name in names:
            return True
        if name not in known:
            known.add(name)
            waiting += [one for each in definitions.get(name, ()) for one in each.argnames]
    return False
