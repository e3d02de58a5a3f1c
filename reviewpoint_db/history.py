"""The last minutes of a process, for charts: one sample each interval, in bounded memory."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from reviewpoint_db.histogram import HistogramSnapshot

if TYPE_CHECKING:
    from reviewpoint_db.activity import ActivitySnapshot

__all__ = ["INTERVAL", "LENGTH", "Gauges", "History", "Sample", "merged"]

#: Seconds between two samples.
INTERVAL: Final = 2
#: Samples that are kept: five minutes.
LENGTH: Final = 150


class Gauges(msgspec.Struct, frozen=True):
    """How full the pools of one process are.

    Args:
        out: Connections in use.
        idle: Open connections that nobody uses.
        waiting: Tasks that wait for one.
        limit: Connections that there may be at most; None where there is no limit.
    """

    out: int = 0
    idle: int = 0
    waiting: int = 0
    limit: int | None = 0

    def __add__(self, other: Gauges) -> Gauges:
        """Count two pools, or two processes, as one."""
        limit = None if self.limit is None or other.limit is None else self.limit + other.limit
        return Gauges(
            self.out + other.out, self.idle + other.idle, self.waiting + other.waiting, limit
        )


class Sample(msgspec.Struct, frozen=True):
    """One interval; times in seconds, percentiles of what ended in it (None: nothing did).

    Args:
        at: When it ended: Unix time, a multiple of `INTERVAL`, so that processes can be merged.
        gauges: The pools at its end.
        acquired: Connections that were handed out.
        errors: Waits that timed out, refused connections and failed statements.
    """

    at: int
    gauges: Gauges
    acquired: int = 0
    errors: int = 0
    wait_p50: float | None = None
    wait_p99: float | None = None
    use_p50: float | None = None
    use_p99: float | None = None


class History:
    """The samples of one process.

    Example:
        >>> history = History()
        >>> history.samples
        ()
    """

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=LENGTH)
        self._last: ActivitySnapshot | None = None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The oldest first."""
        return tuple(self._samples)

    async def keep(self, look: Callable[[], tuple[Gauges, ActivitySnapshot]]) -> None:
        """Take samples until cancelled.

        Args:
            look: Returns the present state.
        """
        while True:
            self.add(time.time(), *look())
            await asyncio.sleep(INTERVAL - time.time() % INTERVAL)

    def add(self, now: float, gauges: Gauges, activity: ActivitySnapshot) -> None:
        """Take one sample.

        Args:
            now: Unix time.
            gauges: The pools.
            activity: The counters since the start; the sample is what changed since the last one.
        """
        at = round(now / INTERVAL) * INTERVAL
        if self._samples and at <= self._samples[-1].at:
            if at >= self._samples[-1].at - INTERVAL:
                return  # the timer came early, or another loop was faster
            self._samples.clear()  # the clock was set back
        last, self._last = self._last, activity
        if last is None:
            self._samples.append(Sample(at, gauges))
            return
        wait = _since(last.wait, activity.wait)
        use = _since(last.use, activity.use)
        sample = Sample(
            at=at,
            gauges=gauges,
            acquired=activity.acquired - last.acquired,
            errors=_errors(activity) - _errors(last),
            wait_p50=wait.percentile(0.5),
            wait_p99=wait.percentile(0.99),
            use_p50=use.percentile(0.5),
            use_p99=use.percentile(0.99),
        )
        self._samples.append(sample)


def merged(histories: Iterable[Iterable[Sample]]) -> tuple[Sample, ...]:
    """Add up the samples of several processes; of their percentiles the worst counts."""
    found: dict[int, Sample] = {}
    for sample in (sample for history in histories for sample in history):
        other = found.get(sample.at)
        found[sample.at] = sample if other is None else _sum(other, sample)
    return tuple(found[at] for at in sorted(found)[-LENGTH:])


def _sum(one: Sample, other: Sample) -> Sample:
    return Sample(
        at=one.at,
        gauges=one.gauges + other.gauges,
        acquired=one.acquired + other.acquired,
        errors=one.errors + other.errors,
        wait_p50=_worse(one.wait_p50, other.wait_p50),
        wait_p99=_worse(one.wait_p99, other.wait_p99),
        use_p50=_worse(one.use_p50, other.use_p50),
        use_p99=_worse(one.use_p99, other.use_p99),
    )


def _worse(one: float | None, other: float | None) -> float | None:
    known = [each for each in (one, other) if each is not None]
    return max(known, default=None)


def _since(last: HistogramSnapshot, now: HistogramSnapshot) -> HistogramSnapshot:
    """What was recorded between two moments; its maximum is that of the whole time."""
    return HistogramSnapshot(
        now.count - last.count,
        now.total - last.total,
        now.maximum,
        tuple(after - before for before, after in zip(last.buckets, now.buckets, strict=True)),
    )


def _errors(activity: ActivitySnapshot) -> int:
    failed = sum(activity.statement_errors.values())
    return activity.timed_out + activity.connection_failures + failed
