"""The README as a package index shows it: without links that lead only where the repository is.

hatchling runs this when it builds a wheel or an sdist (`[tool.hatch.metadata.hooks.custom]`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

__all__ = ["IndexReadme", "standalone"]

_IMAGE = re.compile(r"\n!\[[^\]]*\]\((?!https?://)[^)]*\)\n")
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?://)[^)]*\)")
_NOTE = "\nThe pages named here are in `docs/` of the source distribution.\n"


class IndexReadme(MetadataHookInterface):
    """Gives the project its long description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README to the project's metadata."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": standalone(text)}


def standalone(readme: str) -> str:
    """Return a README whose relative links are plain text, without its relative images."""
    return _LINK.sub(r"\1", _IMAGE.sub("", readme)) + _NOTE
