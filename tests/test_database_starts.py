"""Tasks of one loop that start a database at once: it starts once, and the last one out stops it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, event
from sqlalchemy.util import await_only

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from tests.support.pools import until

if TYPE_CHECKING:
    from collections.abc import Callable


class Starts:
    """A database whose start takes until `goes_on`, and the events that it sent."""

    def __init__(self, url: str) -> None:
        metadata = MetaData()
        Table("papers", metadata, Column("id", Integer, primary_key=True))
        self.goes_on = asyncio.Event()
        self.begun = 0
        self.fails = 0
        event.listen(metadata, "before_create", self._begin)
        config = DatabaseConfig(url=url, environment="test")
        self.database = Database(config, metadata=metadata, create_all=True)
        self.events: list[str] = []
        self.database.activity.subscribe(lambda event, _data: self.events.append(event))
        self.leaves = [asyncio.Event(), asyncio.Event()]
        self.inside: set[int] = set()

    def _begin(self, *_: Any, **__: Any) -> None:
        self.begun += 1
        await_only(self.goes_on.wait())
        if self.fails:
            self.fails -= 1
            raise LookupError

    async def use(self, number: int) -> None:
        async with self.database:
            self.inside.add(number)
            await self.leaves[number].wait()
            assert self.database.started

    async def two(self) -> list[asyncio.Task[None]]:
        """Two who enter; the first has begun to start it, the second waits."""
        tasks = [asyncio.create_task(self.use(number)) for number in range(2)]
        await until(lambda: self.begun > 0)
        await asyncio.sleep(0)
        return tasks


def is_in(starts: Starts, *numbers: int) -> Callable[[], bool]:
    return lambda: starts.inside == set(numbers)


@pytest.mark.parametrize("first_out", [0, 1])
async def test_the_second_waits_for_the_first_and_the_last_one_out_stops(
    sqlite_url: str, first_out: int
) -> None:
    starts = Starts(sqlite_url)
    tasks = await starts.two()
    assert (starts.begun, starts.inside) == (1, set())
    starts.goes_on.set()
    await until(is_in(starts, 0, 1))
    assert (starts.begun, starts.events) == (1, ["db.started"])
    starts.leaves[first_out].set()
    await tasks[first_out]
    assert starts.events == ["db.started"]
    starts.leaves[1 - first_out].set()
    await tasks[1 - first_out]
    assert not starts.database.started
    assert starts.events == ["db.started", "db.stopped"]


async def test_who_waits_and_is_cancelled_leaves_the_start_alone(sqlite_url: str) -> None:
    starts = Starts(sqlite_url)
    first, second = await starts.two()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    starts.goes_on.set()
    await until(is_in(starts, 0))
    starts.leaves[0].set()
    await first
    assert (starts.begun, starts.events) == (1, ["db.started", "db.stopped"])


async def test_the_second_starts_it_when_the_first_is_cancelled(sqlite_url: str) -> None:
    starts = Starts(sqlite_url)
    first, second = await starts.two()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    starts.goes_on.set()
    await until(is_in(starts, 1))
    assert (starts.begun, starts.events) == (2, ["db.started"])
    starts.leaves[1].set()
    await second
    assert not starts.database.started


@pytest.mark.parametrize("fails", [1, 2])
async def test_the_second_tries_again_when_the_first_fails(sqlite_url: str, fails: int) -> None:
    starts = Starts(sqlite_url)
    starts.fails = fails
    for leave in starts.leaves:
        leave.set()
    tasks = await starts.two()
    starts.goes_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [
        LookupError,
        [type(None), LookupError][fails - 1],
    ]
    assert starts.begun == 2
    assert not starts.database.started


async def test_two_calls_of_start_are_one(sqlite_url: str) -> None:
    starts = Starts(sqlite_url)
    starts.goes_on.set()
    await asyncio.gather(starts.database.start(), starts.database.start())
    assert (starts.begun, starts.events) == (1, ["db.started"])
    await starts.database.stop()
    assert not starts.database.started
