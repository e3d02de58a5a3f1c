"""A host of its own on this machine, which can be unplugged: what is sent to it vanishes without a word.

    with FarHost() as far:
        far.address                  # of this machine, as seen from there
        far.command([...])           # runs a program there
        far.unplug()                 # neither side is told anything
        far.plug_in()

A relay cannot do that: its own kernel acknowledges what nobody reads, and answers each probe. This is a
network namespace of Linux, joined to this one by a pair of virtual cables.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FarHost"]

_numbers: Final = itertools.count()
_NEEDS: Final = (
    "a host that can be unplugged is a network namespace: it needs Linux, root (CAP_NET_ADMIN and "
    "CAP_SYS_ADMIN) and Debian's iproute2"
)


class FarHost:
    """Another host, one cable away."""

    def __init__(self) -> None:
        self._name = f"far{os.getpid()}x{next(_numbers)}"
        # https://www.rfc-editor.org/rfc/rfc2544#appendix-C.2.2: for tests, and nobody's address.
        net = f"198.{random.choice((18, 19))}.{random.randrange(256)}"
        self.address = f"{net}.1"
        self._own = f"{net}.2"

    def __enter__(self) -> Self:
        """Make it.

        Raises:
            RuntimeError: This machine or user may not; the message says what is needed.
        """
        far = ("-n", self._name)
        _ip("netns", "add", self._name)
        try:
            _ip("link", "add", self._name, "type", "veth", "peer", "cable", "netns", self._name)
            _ip("address", "add", f"{self.address}/30", "dev", self._name)
            _ip("link", "set", self._name, "up")
            _ip(*far, "address", "add", f"{self._own}/30", "dev", "cable")
            self.plug_in()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def command(self, words: Sequence[str]) -> list[str]:
        """The words that run a program there."""
        return [_program(), "netns", "exec", self._name, *words]

    def unplug(self) -> None:
        """Swallow all that is sent, in both directions."""
        _ip("-n", self._name, "link", "set", "cable", "down")

    def plug_in(self) -> None:
        """Join it again."""
        _ip("-n", self._name, "link", "set", "cable", "up")

    def remove(self) -> None:
        """Remove it; programs that still run there keep their side, unplugged."""
        _ip("netns", "delete", self._name)


def _program() -> str:
    found = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise RuntimeError(_NEEDS)
    return found


def _ip(*words: str) -> None:
    result = subprocess.run(
        [_program(), *words], capture_output=True, text=True, timeout=20, check=False
    )
    if result.returncode:
        raise RuntimeError(f"{_NEEDS} (ip {' '.join(words)}: {result.stderr.strip()})")
