"""The handlers of the three applications, without their framework.

A handler gets the request's session and the parameters of its URL. Where it has something to store, it
calls `keep()`: the handler's own COMMIT in manual mode, nothing in autocommit mode.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import insert, select, text

from tests.contract.apps.shared import MODE, cancel_this_request
from tests.contract.apps.tables import notes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from sqlalchemy.ext.asyncio import AsyncSession

    Params = Mapping[str, str]
    Handler = Callable[[AsyncSession, Params], Awaitable["Reply | None"]]


@dataclass
class Reply:
    """What the handler answers."""

    status: int = 200
    data: dict[str, Any] = field(default_factory=dict)


class RefusedError(Exception):
    """The handler raises its framework's HTTPException."""

    def __init__(self, status: int) -> None:
        self.status = status


class Socket(Protocol):
    """What the WebSockets of both frameworks have in common."""

    async def accept(self) -> None: ...
    async def send_text(self, data: str) -> None: ...
    async def receive_text(self) -> str: ...
    async def close(self, code: int = 1000) -> None: ...


async def add(session: AsyncSession, key: str, **more: Any) -> None:
    """Insert a note."""
    await session.execute(insert(notes).values(key=key, **more))


async def keep(session: AsyncSession) -> None:
    """Commit, where that is the handler's part."""
    if MODE == "manual":
        await session.commit()


# -- handlers that store ---------------------------------------------------------------------------


async def store(session: AsyncSession, params: Params) -> None:
    await add(session, params["key"], at_commit=params.get("at_commit"))
    await keep(session)


async def store_and_redirect(session: AsyncSession, params: Params) -> Reply:
    await store(session, params)
    return Reply(303)


async def store_slowly(session: AsyncSession, params: Params) -> None:
    """Holds its connection in Python code."""
    await add(session, params["key"])
    await asyncio.sleep(float(params["seconds"]))
    await keep(session)


async def query_slowly(session: AsyncSession, params: Params) -> None:
    await add(session, params["key"])
    await session.execute(text("SELECT pg_sleep(:s)"), {"s": float(params["seconds"])})
    await keep(session)


async def isolated(session: AsyncSession, params: Params) -> Reply:
    await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
    level = (await session.execute(text("SHOW transaction_isolation"))).scalar_one()
    await store(session, params)
    return Reply(data={"level": level})


async def count(session: AsyncSession, params: Params) -> Reply:
    found = await session.execute(select(notes.c.id).where(notes.c.key == params["key"]))
    return Reply(data={"count": len(found.all())})


async def hold(session: AsyncSession, params: Params) -> None:
    """A read session keeps its connection while it streams."""
    rows = await session.stream(text("SELECT 1"))
    await asyncio.sleep(float(params["seconds"]))
    await rows.close()


# -- handlers that do not --------------------------------------------------------------------------


async def add_only(session: AsyncSession, params: Params) -> Reply:
    """Nobody commits in manual mode."""
    await add(session, params["key"])
    return Reply(int(params.get("status", "200")))


async def leave_driver_busy(session: AsyncSession, params: Params) -> None:
    """Returns its connection with a statement of the driver itself under way on it."""
    raw = await (await session.connection()).get_raw_connection()
    driver: Any = raw.driver_connection
    task = asyncio.create_task(driver.execute("SELECT 1 FROM pg_sleep(5)", timeout=60))
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.sleep(0)


async def close_early(session: AsyncSession, params: Params) -> None:
    """Ends the session as one that it opened itself."""
    async with session:
        await add(session, params["key"])


async def orphan(session: AsyncSession, params: Params) -> None:
    """The foreign key is checked at COMMIT."""
    await add(session, params["key"], follows=-1)
    await keep(session)


async def duplicate(session: AsyncSession, params: Params) -> None:
    await add(session, params["key"])
    await add(session, params["key"])


async def fail(session: AsyncSession, params: Params) -> None:
    """The server fails a statement with a SQLSTATE."""
    await add(session, params["key"])
    await session.execute(text("SELECT fail(:code)"), {"code": params["code"]})


async def fail_in_a_stream(session: AsyncSession, params: Params) -> None:
    """The server fails while the rows of a statement are fetched."""
    await add(session, params["key"])
    failing = "CASE WHEN i > 500 THEN fail(:code)::text END"
    rows = text(f"SELECT {failing} FROM generate_series(1, 1000) AS i")
    async for _ in await session.stream(rows, {"code": params["code"]}):
        pass
    await keep(session)


async def fail_unseen(session: AsyncSession, params: Params) -> None:
    """The driver itself meets an error in the transaction, and the handler goes on."""
    await add(session, params["key"])
    raw = await (await session.connection()).get_raw_connection()
    driver: Any = raw.driver_connection
    with contextlib.suppress(Exception):
        await driver.execute("SELECT 1 / 0")
    await keep(session)


async def bad_value(session: AsyncSession, params: Params) -> None:
    """The driver refuses a value, and shows it in its message."""
    await session.execute(
        text("SELECT CAST(:value AS integer) + CAST(:same AS integer)"),
        {"value": params["key"], "same": params["key"]},
    )


async def missing_table(session: AsyncSession, params: Params) -> None:
    await session.execute(text("SELECT * FROM missing WHERE key = :key"), {"key": params["key"]})


async def refuse(session: AsyncSession, params: Params) -> None:
    await add(session, params["key"])
    raise RefusedError(int(params["status"]))


async def crash(session: AsyncSession, params: Params) -> None:
    await add(session, params["key"])
    raise RuntimeError("crashed")


# -- handlers whose request is cancelled -----------------------------------------------------------


async def cancelled_in_query(session: AsyncSession, params: Params) -> None:
    await add(session, params["key"])
    cancel_this_request(0.2)
    await session.execute(text("SELECT pg_sleep(30)"))
    await keep(session)


async def cancelled_in_python(session: AsyncSession, params: Params) -> None:
    await add(session, params["key"])
    cancel_this_request()
    await asyncio.sleep(30)
    await keep(session)


async def cancelled_in_commit(session: AsyncSession, params: Params) -> None:
    await add(session, params["key"], at_commit="sleep 1")
    cancel_this_request(0.3)
    await keep(session)


async def given_up(session: AsyncSession, params: Params) -> Reply:
    """`wait_for` around a query; the same session goes on."""
    await add(session, f"{params['key']} before")
    timed_out = False
    try:
        await asyncio.wait_for(session.execute(text("SELECT pg_sleep(30)")), 0.2)
    except TimeoutError:
        timed_out = True
        await session.rollback()
    await store(session, params)
    return Reply(data={"timed_out": timed_out})


async def gathered(session: AsyncSession, params: Params) -> None:
    """Several tasks on one session."""
    await asyncio.gather(*(session.execute(text("SELECT 1")) for _ in range(3)))
    await store(session, params)


# -- handlers that meet each other -----------------------------------------------------------------

_barriers: dict[str, asyncio.Barrier] = defaultdict(lambda: asyncio.Barrier(2))


async def meet(params: Params, where: str) -> None:
    """Wait until the other request of the pair is here too."""
    async with asyncio.timeout(5):
        await _barriers[params["pair"] + where].wait()


async def skewed(session: AsyncSession, params: Params) -> None:
    """Write skew: each reads what the other writes; the second COMMIT fails."""
    await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
    await session.execute(text("SELECT count(*) FROM notes"))
    await meet(params, "read")
    await add(session, params["key"])
    await meet(params, "written")
    await keep(session)


async def deadlocked(session: AsyncSession, params: Params) -> None:
    """Two requests take two locks in opposite orders."""
    await add(session, params["key"])
    for lock in params["locks"].split():
        await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": int(lock)})
        if lock == params["locks"].split()[0]:
            await meet(params, "locked")
    await keep(session)


HANDLERS: dict[str, Handler] = {
    handler.__name__.replace("_", "-"): handler
    for handler in (
        store,
        store_and_redirect,
        store_slowly,
        query_slowly,
        isolated,
        count,
        hold,
        add_only,
        leave_driver_busy,
        close_early,
        orphan,
        duplicate,
        fail,
        fail_in_a_stream,
        fail_unseen,
        bad_value,
        missing_table,
        refuse,
        crash,
        cancelled_in_query,
        cancelled_in_python,
        cancelled_in_commit,
        given_up,
        gathered,
        skewed,
        deadlocked,
    )
}


# -- streams ------------------------------------------------------------------------------------


async def stream(name: str, session: AsyncSession, params: Params) -> AsyncIterator[bytes]:
    """Yield five pieces; each reads and writes by the session."""
    for number in range(5):
        more = {"follows": -1} if name == "orphan" and number == 4 else {}
        await add(session, f"{params['key']} {number}", **more)
        found = (await session.execute(text("SELECT count(*) FROM notes"))).scalar_one()
        yield b"%6d rows\n" % found
        if name == "break" and number == 2:
            raise RuntimeError("broken off")
        if name == "linger" and number == 2:
            await asyncio.sleep(30)
    await keep(session)


def stream_headers(params: Params) -> dict[str, str]:
    """What the response of a stream says of its body."""
    return {"content-length": params["length"]} if "length" in params else {}


# -- WebSockets ---------------------------------------------------------------------------------


async def converse(name: str, socket: Socket, session: AsyncSession, params: Params) -> None:
    """Store a note, or not, over a WebSocket."""
    if name != "first":  # "first": a handshake that asks the database before it accepts
        await socket.accept()
    await add(session, params["key"], follows=-1 if name == "orphan" else None)
    if name == "first":
        await socket.accept()
    await socket.send_text("added")
    await {
        "close": _close,
        "first": _close,
        "orphan": _close,
        "refuse": _close_with_error,
        "return": _return,
        "crash": _crash,
        "wait": _wait,
        "catch": _catch,
    }[name](socket, session)


async def _close(socket: Socket, session: AsyncSession) -> None:
    await keep(session)
    await socket.close()


async def _close_with_error(socket: Socket, _session: AsyncSession) -> None:
    await socket.close(4000)


async def _return(_socket: Socket, session: AsyncSession) -> None:
    await keep(session)


async def _crash(_socket: Socket, _session: AsyncSession) -> None:
    raise RuntimeError("crashed")


async def _wait(socket: Socket, session: AsyncSession) -> None:
    """The client leaves meanwhile, and that is not caught."""
    await socket.receive_text()
    await keep(session)


async def _catch(socket: Socket, session: AsyncSession) -> None:
    """The client leaves meanwhile, and the handler goes on."""
    try:
        await socket.receive_text()
    except Exception as error:
        if type(error).__name__ != "WebSocketDisconnect":
            raise
    await keep(session)
