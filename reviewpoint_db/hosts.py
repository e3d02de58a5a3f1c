"""Several hosts in one URL: the first that answers as wanted gets the connection.

asyncpg tries one after the other within one time limit, which a host that is frozen, or whose
packets are lost, uses up alone. Here the next host is asked when one has failed, or has not answered
for a moment; those who come too late are cut. https://www.rfc-editor.org/rfc/rfc8305#section-5
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from reviewpoint_db.redaction import safe_error
from reviewpoint_db.sqlstate import is_transient_connect

__all__ = ["HEAD_START", "NoHostError", "connect_first"]

#: Seconds for which a host is asked before the next one is asked as well.
HEAD_START: Final = 0.5


class NoHostError(ConnectionError):
    """No host gave the wanted connection; the text says of each why. It may pass."""


async def connect_first(*, host: Sequence[str], port: Sequence[int], **options: Any) -> Any:
    """Connect to one of several hosts: an `async_creator_fn` for SQLAlchemy's asyncpg dialect.

    Args:
        host: Their names, in the order in which they are asked.
        port: Their ports.
        options: For `asyncpg.connect()`. Of `timeout` each host has all.

    Raises:
        NoHostError: None has the wanted `target_session_attrs`, or none answered.
    """
    from asyncpg import connect  # SQLite needs no asyncpg

    if options.get("target_session_attrs") == "prefer-standby":
        # Which one is right is known only when all have answered.
        return await connect(host=list(host), port=list(port), **options)
    places = deque(zip(host, port, strict=True))
    asked: dict[asyncio.Task[Any], str] = {}
    refusals: dict[str, Exception] = {}
    try:
        while places or asked:
            if places:
                name, number = places.popleft()
                place = f"{name}:{number}"
                task = asyncio.create_task(connect(host=[name], port=[number], **options))
                asked[task] = place
            done, _ = await asyncio.wait(
                asked, timeout=HEAD_START if places else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                place = asked.pop(task)
                if (error := task.exception()) is None:
                    return task.result()
                if not isinstance(error, Exception):
                    raise error
                refusals[place] = error
    finally:
        for task in asked:
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
