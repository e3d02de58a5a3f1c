"""Names of one module that live in another: read, set and deleted from outside, seen by all.

A plain `from owner import engine` copies today's value; a module `__getattr__` follows reading, but
pytest's `monkeypatch` then *deletes* the name when it undoes a change. Properties on the module's
class follow all three.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("forward_names",)


def forward_names(module_name: str, names: Iterable[str], owner: object) -> None:
    """Make attributes of a module those of another object, both ways.

    Args:
        module_name: The `__name__` of an imported module; what it holds under the names is dropped.
        names: The attributes to forward.
        owner: Whom they are read from, set on and deleted from.
    """
    module = sys.modules[module_name]
    kind = type(module)
    namespace = {name: _forwarded(name, owner) for name in names}
    module.__class__ = type(kind.__name__, (kind,), namespace)
    for name in namespace:
        # mock.patch looks here first, and would restore this value instead of the owner's.
        module.__dict__.pop(name, None)


def _forwarded(name: str, owner: object) -> property:
    def read(_: object) -> Any:
        return getattr(owner, name)

    def write(_: object, value: Any) -> None:
        setattr(owner, name, value)

    def delete(_: object) -> None:
        delattr(owner, name)

    return property(read, write, delete)
