"""The sandbox itself, on a SQLite file, in the moments that an application rarely meets."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

import aiosqlite
import pytest

from reviewpoint_db.testing import SandboxError, SandboxEscapeError
from reviewpoint_db.testing.channel import Channel
from reviewpoint_db.testing.levels import Member
from reviewpoint_db.testing.sandbox import Sandbox
from reviewpoint_db.testing.sqlite import SQLiteErrors, SQLiteGround
from reviewpoint_db.testing.thread import LoopThread
from reviewpoint_db.testing.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ONE, OTHER, THIRD = object(), object(), object()


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[SQLiteGround]:
    driver = await aiosqlite.connect(tmp_path / "ground.sqlite3", isolation_level=None)
    await driver.execute("CREATE TABLE notes (text TEXT PRIMARY KEY)")
    ground = SQLiteGround(driver)
    yield ground
    await ground.close()


@pytest.fixture
async def sandbox(ground: SQLiteGround) -> Sandbox:
    sandbox = Sandbox(ground, turn_timeout=5.0)
    await sandbox.open()
    return sandbox


async def test_who_has_no_transaction_ends_none(sandbox: Sandbox) -> None:
    member = Member()
    await sandbox.commit(member)
    await sandbox.rollback(member)
    await sandbox.drop(member)
    assert member.gone


async def test_what_is_open_at_the_end_of_the_test_is_lost(sandbox: Sandbox) -> None:
    member = Member()
    await sandbox.begin(member, ONE, "one")
    await sandbox.close()
    assert member.level is not None and member.level.lost
    with pytest.raises(SandboxError, match="of a test, which is over"):
        await sandbox.begin(Member(), OTHER, "other")


async def test_a_transaction_that_cannot_begin_leaves_the_turn(sandbox: Sandbox) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await sandbox.begin(Member(), ONE, "one", read_only=True)  # SQLite has no such thing
    await sandbox.begin(Member(), OTHER, "other")


async def test_who_is_gone_when_its_turn_comes_leaves_it(sandbox: Sandbox) -> None:
    member = Member()
    member.gone = True
    await sandbox.begin(member, ONE, "one")
    assert member.level is None
    await sandbox.begin(Member(), OTHER, "other")


async def test_a_failing_statement_that_ends_the_transaction_is_an_escape(
    sandbox: Sandbox, ground: SQLiteGround
) -> None:
    member = Member()
    await sandbox.begin(member, ONE, "one")
    statement = "INSERT OR ROLLBACK INTO notes VALUES ('a'), ('a')"
    with pytest.raises(SandboxEscapeError, match=r"one executed .INSERT OR ROLLBACK"):
        await sandbox.run(member, ONE, "one", statement, lambda: ground.run(statement))
    assert ground.open


async def test_turns_come_in_order_and_to_all_transactions_of_a_party(sandbox: Sandbox) -> None:
    first, seen = Member(), list[str]()
    await sandbox.begin(first, ONE, "one")

    async def work(party: object, name: str) -> None:
        member = Member()
        await sandbox.begin(member, party, name)
        seen.append(name)
        await sandbox.commit(member)

    party, last = object(), object()
    waiting = [
        asyncio.create_task(work(*of))
        for of in ((OTHER, "a"), (party, "b"), (last, "c"), (party, "d"))
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    await sandbox.commit(first)
    done, _ = await asyncio.wait(waiting, timeout=5)
    assert len(done) == 4
    assert waiting[0].cancelled()
    assert sorted(seen) == ["b", "c", "d"]
    assert seen.index("c") == 2


async def test_who_is_cancelled_in_the_moment_of_its_turn_leaves_it(sandbox: Sandbox) -> None:
    first = Member()
    await sandbox.begin(first, ONE, "one")
    task = asyncio.create_task(sandbox.begin(Member(), OTHER, "other"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    sandbox._turns.leave(ONE)  # its turn comes, and before it knows it is cancelled
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await sandbox._turns.take(object(), "third", 1.0)


async def test_who_gives_up_in_the_moment_of_his_turn_leaves_it_to_the_next() -> None:
    turns = Turns()
    assert await turns.take(ONE, "one", 5.0)
    waiter = asyncio.create_task(turns.take(OTHER, "other", 5.0))
    last = asyncio.create_task(turns.take(THIRD, "third", 5.0))
    await asyncio.sleep(0)
    waiter.cancel()  # it has not noticed yet
    turns.leave(ONE)
    assert await last
    assert turns.holder == "third"
    turns.leave(THIRD)


async def test_who_gave_up_before_his_turn_is_passed_over() -> None:
    turns = Turns()
    assert await turns.take(ONE, "one", 5.0)
    waiter = asyncio.create_task(turns.take(OTHER, "other", 5.0))
    last = asyncio.create_task(turns.take(THIRD, "third", 5.0))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not await turns.take(OTHER, "too long", 0.001)
    turns.leave(ONE)
    assert await last
    turns.leave(THIRD)


async def test_a_sandbox_that_is_gone_has_nothing_to_undo(sandbox: Sandbox) -> None:
    owner = LoopThread()
    channel = Channel(sandbox, owner, None, SQLiteErrors())
    owner.stop()
    assert channel.drop().result(0) is None
    assert channel.closed


async def test_who_waits_too_long_is_told_for_whom(ground: SQLiteGround) -> None:
    sandbox = Sandbox(ground, turn_timeout=0.01)
    await sandbox.open()
    await sandbox.begin(Member(), ONE, "the holder")
    with pytest.raises(SandboxError, match=r"the waiter waited 0.01 s .* the holder has"):
        await sandbox.begin(Member(), OTHER, "the waiter")
