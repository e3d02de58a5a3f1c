"""Durations in doubling buckets."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

import msgspec

__all__ = ["BUCKETS", "Histogram", "HistogramSnapshot"]

#: Upper bounds in seconds; doubling from 50 µs, so that a percentile is right within a factor of two.
BUCKETS: Final = tuple(0.00005 * 2**i for i in range(22))


class HistogramSnapshot(msgspec.Struct, frozen=True):
    """A histogram at one moment; all values are in seconds.

    Args:
        count: How many durations were recorded.
        total: Their sum.
        maximum: The longest.
        buckets: How many fell into each of `BUCKETS`, and beyond the last.
    """

    count: int
    total: float
    maximum: float
    buckets: tuple[int, ...]

    def percentile(self, fraction: float) -> float | None:
        """Return the upper bound of the bucket in which the percentile lies.

        Args:
            fraction: 0.99 for the 99th percentile.
        """
        if not self.count:
            return None
        rank = fraction * self.count
        seen = 0
        for bound, hits in zip(BUCKETS, self.buckets, strict=False):
            seen += hits
            if seen >= rank:
                return min(float(bound), self.maximum)
        return self.maximum


class Histogram:
    """Durations in doubling buckets: constant memory, one bisection to record."""

    __slots__ = ("_buckets", "_maximum", "_total", "count")

    def __init__(self) -> None:
        self._buckets = [0] * (len(BUCKETS) + 1)
        self.count = 0
        self._total = 0.0
        self._maximum = 0.0

    def record(self, seconds: float) -> None:
        """Add one duration."""
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self.count += 1
        self._total += seconds
        if seconds > self._maximum:  # noqa: PLR1730 - max() costs thrice as much, at every checkout
            self._maximum = seconds

    def snapshot(self) -> HistogramSnapshot:
        """Return what was recorded until now."""
        return HistogramSnapshot(self.count, self._total, self._maximum, tuple(self._buckets))
