"""What took longest in the last hour, in bounded memory."""

from __future__ import annotations

from reviewpoint_db.slowest import Slowest


def record(slowest: Slowest, name: str, seconds: float, now: float = 0.0) -> None:
    slowest.record(name, seconds, now, lambda: f"for {seconds:g}")


def test_the_longest_come_first_with_whom_it_was_for() -> None:
    slowest = Slowest()
    for seconds in (1.0, 3.0, 2.0):
        record(slowest, "a", seconds)
    record(slowest, "b", 4.0)
    first, second = slowest.snapshot(0)
    assert (first.name, first.maximum, first.origin) == ("b", 4.0, "for 4")
    assert (second.count, second.total, second.maximum, second.origin) == (3, 6.0, 3.0, "for 3")
    assert len(slowest.snapshot(0, limit=1)) == 1


def test_names_that_are_shown_alike_are_counted_together() -> None:
    slowest = Slowest(str.lower)
    record(slowest, "A", 1.0)
    record(slowest, "a", 2.0)
    record(slowest, "a", 1.5, now=1000)
    (only,) = slowest.snapshot(1000)
    assert (only.name, only.count, only.origin) == ("a", 3, "for 2")


def test_what_is_older_than_an_hour_is_forgotten() -> None:
    slowest = Slowest()
    record(slowest, "old", 9.0, now=0)
    record(slowest, "new", 1.0, now=2000)
    assert [each.name for each in slowest.snapshot(3500)] == ["old", "new"]
    assert [each.name for each in slowest.snapshot(3700)] == ["new"]
    record(slowest, "new", 1.0, now=9000)
    assert [each.count for each in slowest.snapshot(9000)] == [1]


def test_of_too_many_names_those_that_took_most_stay() -> None:
    slowest = Slowest()
    record(slowest, "slow", 5.0)
    for number in range(10_000):
        record(slowest, f"name {number}", 0.001)
    assert len(slowest.snapshot(0, limit=10_000)) <= 300
    assert slowest.snapshot(0)[0].name == "slow"


def test_a_long_name_is_cut() -> None:
    slowest = Slowest()
    record(slowest, "n" * 5000, 1.0)
    assert len(slowest.snapshot(0)[0].name) == 1000


def test_what_took_longest_for_somebody_who_is_left_out_is_not_told() -> None:
    slowest = Slowest(but_of="system checks")
    slowest.record("show max_connections", 9.0, 0, lambda: "system checks")
    slowest.record("select papers", 1.0, 0, lambda: "GET /papers")
    slowest.record("select reviews", 2.0, 0, lambda: None)
    assert [each.name for each in slowest.snapshot(0, limit=2)] == [
        "select reviews",
        "select papers",
    ]
