"""Ten times the load that the pool can serve, from a process of its own."""

from __future__ import annotations

from benchmarks.shedding import overload


def test_ten_times_the_capacity_leaves_the_capacity_to_those_who_are_still_there(
    postgres_url: str,
) -> None:
    """Without the rule the fair queue serves those whose clients have gone."""
    shed = overload(postgres_url, times=10, seconds=4, target=0.1)
    assert shed.goodput >= 0.9, shed
    assert shed.median < 0.1, shed  # at once, whatever the machine makes of it
    assert shed.slowest < 1, shed  # from before the overload was known
    assert overload(postgres_url, times=10, seconds=4, target=0).goodput < 0.5
