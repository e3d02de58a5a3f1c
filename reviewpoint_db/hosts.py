"""Several hosts in one URL: the first that answers as wanted gets the connection.

asyncpg tries one after the other within one time limit, which a host that is frozen, or whose
packets are lost, uses up alone. Here the next host is asked when one has failed, or has not answered
for a moment; those who come too late are cut. https://www.rfc-editor.org/rfc/rfc8305#section-5
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from reviewpoint_db.redaction import safe_error
from reviewpoint_db.sqlstate import is_transient_connect

__all__ = ["HEAD_START", "HostNotes", "Met", "NoHostError", "connect_first"]

#: Seconds for which a host is asked before the next one is asked as well.
HEAD_START: Final = 0.5
#: asyncpg's error for a host without the wanted `target_session_attrs`; SQLite needs no asyncpg.
_UNFIT: Final = "TargetServerAttributeNotMatched"


class NoHostError(ConnectionError):
    """No host gave the wanted connection; the text says of each why. It may pass."""


class Met(NamedTuple):
    """What became of the last attempt to connect to a host.

    Args:
        at: When that was known, in monotonic seconds.
        error: Why there is no connection, safe to show; None when there is.
        unfit: It answered, but is not what `target_session_attrs` asks for.
    """

    at: float
    error: str | None = None
    unfit: bool = False


class HostNotes:
    """What one engine's connects have met, for those who look; nothing is decided by it."""

    def __init__(self) -> None:
        self._met: dict[str, Met] = {}
        self._places: WeakKeyDictionary[Any, str] = WeakKeyDictionary()

    @property
    def met(self) -> Mapping[str, Met]:
        """The last attempt at each host that was asked, by `name:port`."""
        return dict(self._met)

    def open(self) -> Counter[str]:
        """Count the open connections to each host."""
        places = list(self._places.items())
        return Counter(place for connection, place in places if not connection.is_closed())

    def connected(self, place: str, connection: Any) -> None:
        """Note who got a connection."""
        self._met[place] = Met(time.monotonic())
        self._places[connection] = place

    def failed(self, place: str, error: BaseException) -> None:
        """Note who gave none."""
        unfit = type(error).__name__ == _UNFIT
        self._met[place] = Met(time.monotonic(), safe_error(error), unfit)

    def silent(self, place: str, asked_at: float) -> None:
        """Note who had not answered when another one did, if it had the time to."""
        now = time.monotonic()
        if now - asked_at >= HEAD_START:
            self._met[place] = Met(now, f"no answer within {now - asked_at:.1f} s")


async def connect_first(
    *,
    host: Sequence[str],
    port: Sequence[int],
    host_notes: HostNotes | None = None,
    **options: Any,
) -> Any:
    """Connect to one of several hosts: an `async_creator_fn` for SQLAlchemy's asyncpg dialect.

    Args:
        host: Their names, in the order in which they are asked.
        port: Their ports.
        host_notes: Where it is noted what became of each.
        options: For `asyncpg.connect()`. Of `timeout` each host has all.

    Raises:
        NoHostError: None has the wanted `target_session_attrs`, or none answered.
    """
    from asyncpg import connect  # SQLite needs no asyncpg

    if options.get("target_session_attrs") == "prefer-standby":
        # Which one is right is known only when all have answered.
        return await connect(host=list(host), port=list(port), **options)
    notes = host_notes or HostNotes()
    places = deque(zip(host, port, strict=True))
    asked: dict[asyncio.Task[Any], tuple[str, float]] = {}
    refusals: dict[str, Exception] = {}
    try:
        while places or asked:
            if places:
                name, number = places.popleft()
                task = asyncio.create_task(connect(host=[name], port=[number], **options))
                asked[task] = f"{name}:{number}", time.monotonic()
            done, _ = await asyncio.wait(
                asked, timeout=HEAD_START if places else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                place, _ = asked.pop(task)
                try:
                    connection = task.result()
                except Exception as error:  # noqa: BLE001 - whatever it is, the others are asked
                    refusals[place] = error
                    notes.failed(place, error)
                else:
                    notes.connected(place, connection)
                    return connection
    finally:
        for task, (place, asked_at) in asked.items():
            notes.silent(place, asked_at)
            task.add_done_callback(_cut)
            task.cancel()
    raise _verdict(refusals, options.get("target_session_attrs"))


def _cut(task: asyncio.Task[Any]) -> None:
    """End a connection that came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


def _verdict(refusals: dict[str, Exception], wanted: str | None) -> Exception:
    """Say what became of all hosts; one who may be back makes it worth another try."""
    if not any(is_transient_connect(error) for error in refusals.values()):
        return next(iter(refusals.values()))
    each = "; ".join(f"{place}: {safe_error(error)}" for place, error in refusals.items())
    host = {
        "read-write": "writable host",
        "primary": "primary",
        "standby": "standby",
        "read-only": "read-only host",
    }
    return NoHostError(f"no {host.get(wanted or 'any', 'host')} among {len(refusals)} ({each})")
