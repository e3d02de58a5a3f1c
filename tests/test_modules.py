"""Names of a module that live in another object."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from reviewpoint_db.modules import forward_names


@pytest.fixture
def module() -> Iterator[Any]:
    name = "a_module_of_the_tests"
    module = sys.modules[name] = ModuleType(name)
    yield module
    del sys.modules[name]


@pytest.fixture
def owner(module: Any) -> SimpleNamespace:
    owner = SimpleNamespace(engine="live", other=1)
    module.engine = "stale"
    forward_names(module.__name__, ["engine"], owner)
    return owner


def test_reading_setting_and_deleting_happen_at_the_owner(
    module: Any, owner: SimpleNamespace
) -> None:
    assert module.engine == "live"
    module.engine = "set"
    assert owner.engine == "set"
    del module.engine
    assert not hasattr(owner, "engine")
    with pytest.raises(AttributeError):
        module.engine  # noqa: B018


def test_names_that_are_not_forwarded_stay_the_modules(module: Any, owner: SimpleNamespace) -> None:
    module.other = 2
    assert owner.other == 1
    assert isinstance(module, ModuleType)


def test_monkeypatch_undoes_its_change(module: Any, owner: SimpleNamespace) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "engine", "patched")
        assert owner.engine == "patched"
    assert owner.engine == "live"
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(module, "engine")
        assert not hasattr(owner, "engine")
    assert owner.engine == "live"


def test_mock_patch_undoes_its_change(module: Any, owner: SimpleNamespace) -> None:
    with mock.patch(f"{module.__name__}.engine", "patched"):
        assert owner.engine == "patched"
    assert owner.engine == "live"


def test_forwarding_again_adds_names(module: Any, owner: SimpleNamespace) -> None:
    forward_names(module.__name__, ["other"], owner)
    assert (module.engine, module.other) == ("live", 1)
