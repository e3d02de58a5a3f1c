"""What a piece of code leaves to the garbage collector: objects that refer to each other in a circle.

Each costs a search of the heap, later, and keeps until then what it refers to.
"""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def garbage(*kinds: type) -> Iterator[list[object]]:
    """Yields a list that has the left objects of these kinds after the block."""
    found: list[object] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other tests left has some of its own
        gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += [one for one in gc.garbage if isinstance(one, kinds)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
