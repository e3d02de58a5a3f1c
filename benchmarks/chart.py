"""The chart of the documentation: how each contender compares to advanced-alchemy."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final

from benchmarks.rows import COLUMNS, OURS, THEIRS, Row

_WIDTH: Final = 760
_LEFT: Final = 190
_BAR: Final = 22
_GAP: Final = 8
#: Which rows are drawn, by the beginning of their names.
_DRAWN: Final = ("HTTP reads/s, 16", "p99 of these", "HTTP INSERT")
# Readable on a light and on a dark page alike.
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#607d8b}.t{font-weight:600;font-size:14px}"
    ".b{fill:#90a4ae}.o{fill:#009688}"
)


def draw(rows: list[Row], path: Path) -> None:
    """Write the chart as an SVG.

    Args:
        rows: Those of a whole run; what is missing is left out.
        path: Where to.
    """
    parts: list[str] = []
    top = 0
    for row in rows:
        if row.measure.startswith(_DRAWN):
            top = _panel(parts, row, top + 26)
    path.parent.mkdir(parents=True, exist_ok=True)
    title = "Throughput and latency by contender"
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 8}" role="img" '
        f'aria-label="{title}"><title>{title}</title><style>{_STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(parts: list[str], row: Row, top: int) -> int:
    parts.append(f'<text class="t" x="0" y="{top}">{escape(row.measure.partition(" (")[0])}</text>')
    names = [name for name in COLUMNS if name in row.values]
    longest = max(row.values.values())
    base = row.values.get(THEIRS)
    y = top + 10
    for name in names:
        value = row.values[name]
        width = max(2, round((_WIDTH - _LEFT - 220) * value / longest))
        kind = "o" if name.startswith(OURS) else "b"
        ratio = f"  ({value / base:.2f} of {THEIRS}'s)" if base and name != THEIRS else ""
        short = f"{value:,.0f}{ratio}"
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{width}" height="{_BAR}" rx="3"/>'
            f'<text x="{_LEFT + width + 6}" y="{y + 16}">{escape(short)}</text>'
        )
        y += _BAR + _GAP
    return y
