"""A loopback TCP relay before a PostgreSQL server: counts round trips and makes the network fail.

It lives in a thread with a loop of its own, so that a test which blocks its own loop, or has none,
can use it, and so that its counts do not depend on the test's scheduling.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import urlsplit

from tests.support import wire
from tests.support.postgres import HOST, free_port
from tests.support.wire import Conversation, Counters

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

Action = Literal["cut", "cut answer", "hold", "hold answer", "fail", "rewrite"]


@dataclass
class Trigger:
    """What happens, once, to the next Query or Parse message whose SQL contains `text`."""

    text: str
    action: Action
    sqlstate: str = ""
    message: str = ""
    fired: bool = False


class Relay:
    """Passes connections on to a server; `with Relay(host, port) as relay:` runs it.

    Counts: `counters` (see `Counters`; `reset()` sets them to zero), `live`.

    Faults, each until `restore()`: `refuse()`, `blackhole()`, `delay(seconds)`; at once: `drop()`;
    at a statement: `at("COMMIT", "cut")`.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = HOST
        self.port = free_port()
        self.counters = Counters()
        self._upstream = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._listener: socket.socket | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self.triggers: list[Trigger] = []
        self.delay_seconds = 0.0
        self.open = asyncio.Event()

    @classmethod
    def to(cls, url: str) -> Relay:
        """A relay to the server of a URL."""
        parts = urlsplit(url)
        return cls(parts.hostname or HOST, parts.port or 5432)

    def __enter__(self) -> Self:
        self._thread.start()
        self.restore()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def url(self, url: str) -> str:
        """The same database, through the relay."""
        parts = urlsplit(url)
        login, _, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}@{self.host}:{self.port}").geturl()

    @property
    def live(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def reset(self) -> None:
        """Sets all counters to zero."""
        self._do(self.counters.reset)

    def refuse(self) -> None:
        """Refuses new connections; those that are open go on."""
        self._call(self._listen(False))

    def blackhole(self) -> None:
        """Passes nothing on in either direction, and closes nothing: new connections hang too."""
        self._do(self.open.clear)

    def delay(self, seconds: float) -> None:
        """Holds each piece of the server's answers back for that long."""
        self.delay_seconds = seconds

    def drop(self, *, reset: bool = False) -> None:
        """Cuts every open connection, by FIN as a server's end does, or by RST."""
        self._call(self._drop(reset))

    def restore(self) -> None:
        """Ends refuse, blackhole, delay and triggers; what a blackhole held back goes on.

        A connection that a `hold` silenced stays silent until it is dropped.
        """
        self.delay_seconds = 0.0
        self.triggers.clear()
        self._do(self.open.set)
        self._call(self._listen(True))

    def at(
        self, text: str, action: Action, *, sqlstate: str = "40001", message: str = "made to fail"
    ) -> Trigger:
        """Does something, once, to the next Query or Parse message whose SQL contains `text`.

        `cut`: the connection, before the server sees the message. `cut answer`: the server carries
        it out, and the connection is cut when its answer arrives. `hold`, `hold answer`: the same
        with silence instead of a cut. `fail` (Query messages only): the server rolls back, and the
        client gets an error with `sqlstate`. `rewrite`: the server sees `message` in its place. A statement that the client has prepared before comes
        as Bind without its SQL, and is not found.
        """
        trigger = Trigger(text, action, sqlstate, message)
        self.triggers.append(trigger)
        return trigger

    def trigger_for(self, message: bytes) -> Trigger | None:
        """The first waiting trigger that a client's message fires."""
        sql = wire.statement_of(message) if self.triggers else None
        if sql is not None:
            for trigger in self.triggers:
                if not trigger.fired and trigger.text in sql:
                    trigger.fired = True
                    return trigger
        return None

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def _do(self, function: Callable[[], object]) -> None:
        async def call() -> None:
            function()

        self._call(call())

    async def _listen(self, wanted: bool) -> None:
        # Not asyncio.start_server(): one that is closed loses what it accepted a moment ago, and the
        # garbage collector complains of it in whatever test comes next.
        loop = asyncio.get_running_loop()
        if wanted and self._listener is None:
            self._listener = socket.create_server((self.host, self.port))
            self._listener.setblocking(False)
            loop.add_reader(self._listener, self._accept, self._listener)
        elif not wanted and self._listener is not None:
            loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # whoever came has left
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            # asyncio does this only for sockets that were made by its own servers.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.get_running_loop().create_task(self._serve(accepted))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=accepted)
        link = _Link(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._links[link] = task
        try:
            await link.run(self._upstream)
        except (OSError, asyncio.CancelledError):
            pass  # the other side went away, or we cut it: both are what this relay is for
        finally:
            link.close()
            del self._links[link]

    async def _drop(self, reset: bool) -> None:
        for link, task in list(self._links.items()):
            link.abort(reset=reset)
            task.cancel()
        if self._links:
            await asyncio.wait(self._links.values(), timeout=5)
        await asyncio.sleep(0)  # the transports close in the loop's next turn

    async def _close(self) -> None:
        await self._listen(False)
        for _ in range(5):  # what was accepted a moment ago is a link a few turns later
            await asyncio.sleep(0)
        await self._drop(False)


class _Link:
    """One connection through the relay."""

    def __init__(
        self, relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._relay = relay
        self._conversation = Conversation(relay.counters)
        self._client = (reader, writer)
        self._writers = [writer]
        self._pending: Trigger | None = None

    async def run(self, upstream: tuple[str, int]) -> None:
        """Passes bytes on until either side ends."""
        await self._relay.open.wait()
        reader, writer = await asyncio.open_connection(*upstream)
        self._writers.append(writer)
        pumps = [
            asyncio.create_task(self._to_server(self._client[0], writer)),
            asyncio.create_task(self._to_client(reader, self._client[1])),
        ]
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        for pump in done:
            pump.result()

    def close(self) -> None:
        """Closes both sides, after what was passed on to them."""
        for writer in self._writers:
            writer.close()

    def abort(self, *, reset: bool) -> None:
        """Closes both sides at once."""
        for writer in self._writers:
            if reset and not writer.is_closing():
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
            writer.transport.abort()

    async def _to_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._relay.open.wait()
            for message in self._conversation.client_sent(data):
                passed = await self._meet_trigger(message)
                if passed is None:
                    return
                writer.write(passed)
            await writer.drain()

    async def _meet_trigger(self, message: bytes) -> bytes | None:
        """What the server gets instead of a message; None cuts the connection."""
        trigger = self._relay.trigger_for(message)
        if trigger is None:
            return message
        if trigger.action == "cut":
            return None
        if trigger.action == "hold":
            await asyncio.Event().wait()
        if trigger.action == "rewrite":
            return wire.rewritten(message, trigger.message)
        self._pending = trigger
        return wire.query("ROLLBACK") if trigger.action == "fail" else message

    async def _to_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._relay.open.wait()
            if self._relay.delay_seconds:
                await asyncio.sleep(self._relay.delay_seconds)
            for message in self._conversation.server_sent(data):
                trigger = self._pending
                if trigger is None:
                    writer.write(message)
                elif wire.is_ready_for_query(message):
                    if trigger.action == "cut answer":
                        return
                    if trigger.action == "hold answer":
                        await asyncio.Event().wait()
                    self._pending = None
                    writer.write(wire.error(trigger.sqlstate, trigger.message))
            await writer.drain()
