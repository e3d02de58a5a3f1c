"""Ten times the load that the pool can serve, from a process of its own."""

from __future__ import annotations

from benchmarks.shedding import overload


def test_ten_times_the_capacity_leaves_the_capacity_to_those_who_are_still_there(
    postgres_url: str,
) -> None:
    """Without the rule the fair queue serves those whose clients have gone.

    A comparison, far from what the two ways give: nearly all, and a tenth. How much it is by itself
    is for the benchmarks: whatever else the machine does takes from both.
    """
    shed = overload(postgres_url, times=10, seconds=4, target=0.1)
    queued = overload(postgres_url, times=10, seconds=4, target=0)
    assert shed.goodput > queued.goodput, (shed, queued)
    # Who is refused is told so while he is still there.
    assert shed.refused > queued.refused, (shed, queued)
