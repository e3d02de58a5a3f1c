"""Talks to ASGI applications without a server: lifespan, requests, WebSockets, clients that leave.

Every wait has a limit of ten seconds.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    # Each framework types scope, receive and send in its own way.
    Application = Callable[[Any, Any, Any], Awaitable[None]]

LIMIT = 10.0


@asynccontextmanager
async def running(app: Application) -> AsyncIterator[dict[str, Any]]:
    """Runs the lifespan of an application in a task of its own, and yields the lifespan's state.

    Raises:
        RuntimeError: The application said that its startup or its shutdown failed.
    """
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    state: dict[str, Any] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": state}
    task = asyncio.ensure_future(app(scope, inbox.get, outbox.put))

    async def say(phase: str) -> None:
        await inbox.put({"type": f"lifespan.{phase}"})
        answer = await asyncio.wait_for(outbox.get(), LIMIT)
        if answer["type"] != f"lifespan.{phase}.complete":
            await asyncio.wait([task], timeout=LIMIT)
            raise RuntimeError(answer.get("message", "")) from task.exception()

    await say("startup")
    try:
        yield state
    finally:
        await say("shutdown")
        await asyncio.wait_for(task, LIMIT)


def client(app: Application, **settings: Any) -> httpx.AsyncClient:
    """Makes an HTTP client that gets a 500 where the application raises, as from a server."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test", **settings)


class Exchange(NamedTuple):
    """What an application sent in answer to one request, and what it raised."""

    sent: list[Message]
    error: BaseException | None

    @property
    def status(self) -> int | None:
        """The status, when the response began."""
        starts = [one["status"] for one in self.sent if one["type"] == "http.response.start"]
        return starts[0] if starts else None

    @property
    def body(self) -> bytes:
        """What there is of the body."""
        return b"".join(one.get("body", b"") for one in self.sent)

    @property
    def complete(self) -> bool:
        """Whether the last message of the body was sent."""
        return any(
            one["type"] == "http.response.body" and not one.get("more_body") for one in self.sent
        )


def scope_of(kind: str, path: str, **more: Any) -> dict[str, Any]:
    """Makes the scope of a request."""
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        **more,
    }


async def request(
    app: Application,
    path: str,
    *,
    leave_after: int | None = None,
    on_message: Callable[[Message], Awaitable[None]] | None = None,
) -> Exchange:
    """Sends a GET and collects the raw messages of the answer.

    Args:
        app: The application.
        path: What to ask for.
        leave_after: The client leaves when it got that many messages.
        on_message: Called with every message before the application goes on.
    """
    left = asyncio.Event()
    sent: list[Message] = []
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await left.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)
        if on_message is not None:
            await on_message(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            left.set()  # a server tells of the end too: Litestar's streams wait for it
        if leave_after is not None and len(sent) >= leave_after:
            left.set()
            # Gives the application the moment in which a server's transport reports the loss.
            await asyncio.sleep(0)

    error: BaseException | None = None
    try:
        await asyncio.wait_for(app(scope_of("http", path), receive, send), LIMIT)
    except Exception as raised:  # noqa: BLE001 - the caller looks at it
        error = raised
    return Exchange(sent, error)


class WebSocketClient:
    """One WebSocket of an application, from the client's side."""

    def __init__(self, app: Application, path: str, **more: Any) -> None:
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        scope = scope_of("websocket", path, scheme="ws", subprotocols=[], **more)
        del scope["method"]
        self._inbox.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.ensure_future(app(scope, self._inbox.get, self._outbox.put))

    async def receive(self) -> Message:
        """Waits for the next message of the application."""
        return await asyncio.wait_for(self._outbox.get(), LIMIT)

    @property
    def pending(self) -> bool:
        """Whether the application has sent what was not received yet."""
        return not self._outbox.empty()

    async def receive_json(self) -> Any:
        """Waits for the next text, which is JSON."""
        return json.loads((await self.receive())["text"])

    async def send(self, text: str) -> None:
        """Sends a text."""
        await self._inbox.put({"type": "websocket.receive", "text": text})

    async def leave(self, code: int = 1006) -> None:
        """Closes the connection without a word, as a client does that is gone."""
        await self._inbox.put({"type": "websocket.disconnect", "code": code})

    async def ended(self) -> BaseException | None:
        """Waits until the application has returned, and returns what it raised."""
        await asyncio.wait([self._task], timeout=LIMIT)
        return self._task.exception()
