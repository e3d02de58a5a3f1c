"""What a run gives: rows of one figure per contender, and what is judged of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

THEIRS: Final = "advanced-alchemy"
OURS: Final = "reviewpoint_db"
FROZEN: Final = "reviewpoint_db, freeze_gc"
UNOBSERVED: Final = "reviewpoint_db, unobserved"
SHEDDING: Final = "reviewpoint_db, queue_target"
#: The columns of the table, and their headings.
COLUMNS: Final = {
    "asyncpg's pool": "asyncpg",
    "plain SQLAlchemy": "SQLAlchemy",
    THEIRS: "a-alchemy",
    "advanced-alchemy, pre-ping": "+ pre-ping",
    "the original's way": "original",
    OURS: "reviewpoint",
    FROZEN: "+ freeze_gc",
    UNOBSERVED: "unobserved",
    SHEDDING: "+ queue_target",
}


@dataclass(frozen=True)
class Target:
    """What the figure must be."""

    kind: Literal["<=", ">="]
    bound: float

    def met_by(self, figure: float) -> bool:
        return figure <= self.bound if self.kind == "<=" else figure >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.kind == '<=' else '≥'} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """One measure.

    Args:
        measure: Its name and unit.
        values: The medians by contender.
        judged: The ratio that has a target, or ours as it is; None for information.
        target: What it must be.
    """

    measure: str
    values: dict[str, float] = field(default_factory=dict)
    judged: float | None = None
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        if self.target is None or self.judged is None:
            return None
        return self.target.met_by(self.judged)


def paired(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the rounds' ratios: what disturbed a whole round cancels out."""
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table, which reads as plain text too."""
    used = [name for name in COLUMNS if any(name in row.values for row in rows)]
    head = ["measure", *(COLUMNS[name] for name in used), "judged", "target", ""]
    lines = [
        [
            row.measure,
            *(_number(row.values.get(name)) for name in used),
            "" if row.judged is None else f"{row.judged:.2f}",
            "" if row.target is None else str(row.target),
            {True: "met", False: "MISSED", None: ""}[row.met],
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in [head, rule, *lines]
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def write_json(rows: list[Row], machine: dict[str, Any], path: Path) -> None:
    """Write everything that was found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [
        {
            "measure": row.measure,
            "values": row.values,
            "judged": row.judged,
            "target": str(row.target) if row.target else None,
            "met": row.met,
        }
        for row in rows
    ]
    path.write_text(json.dumps({"machine": machine, "rows": found}, indent=2) + "\n")
