"""The two ASGI middlewares, around applications that are a few lines of ASGI."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from reviewpoint_db.after_commit import after_commit
from reviewpoint_db.asgi import UnitOfWorkMiddleware, unit_of
from reviewpoint_db.commit_middleware import CommitMiddleware
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.context import current_units, describe_origin
from reviewpoint_db.database import Database
from reviewpoint_db.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    SessionClosedError,
)
from reviewpoint_db.holder import Holder, Work
from reviewpoint_db.sockets import SocketRefusal, note_failure
from reviewpoint_db.transaction import UnitOfWork
from tests.support import asgi
from tests.support.garbage import garbage
from tests.support.logs import logged
from tests.support.notes import held, metadata, notes, stored, write, write_orphan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from reviewpoint_db.asgi_types import Message, Receive, Scope, Send
    from reviewpoint_db.transaction import CommitMode

    Application = Callable[[Scope, Receive, Send], Awaitable[None]]

OK = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"end"}
SLOW = text(
    "with recursive n(i) as (select 1 union all select i + 1 from n limit 100000000) "
    "select count(*) from n"
)


@pytest.fixture
async def database(sqlite_url: str) -> AsyncIterator[Database]:
    config = DatabaseConfig(url=sqlite_url)
    async with Database(config, metadata=metadata, create_all=True) as database:
        yield database


class Answered:
    """Answers errors of COMMIT, and remembers them."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    async def __call__(self, _: Scope, __: Receive, send: Send, error: Exception) -> None:
        self.errors.append(error)
        await send({"type": "http.response.start", "status": 409, "headers": []})
        await send(dict(END))


def around(
    app: Application,
    database: Database,
    *,
    commit: CommitMode = "autocommit",
    between: Callable[[Application], Application] = lambda app: app,
    answer: Answered | None = None,
    frameworks: tuple[str, ...] = ("none.",),
) -> Application:
    """Our two middlewares, and the application's own between them."""
    inner = CommitMiddleware(app, database, answer=answer or Answered(), frameworks=frameworks)
    return UnitOfWorkMiddleware(
        between(inner), database, commit=commit, origin=lambda scope: f"GET {scope['path']}"
    )


async def writes(scope: Scope, _: Receive, send: Send) -> None:
    """Writes a note and answers by the status in its path."""
    await write(unit_of(scope).session, "note")
    await send({**OK, "status": int(scope["path"][1:])})
    await send(dict(END))


async def writes_an_orphan(scope: Scope, _: Receive, send: Send) -> None:
    """Makes COMMIT fail."""
    await write_orphan(unit_of(scope).session)
    await send(dict(OK))
    await send(dict(END))


async def test_a_scope_without_a_unit_of_work_says_what_to_install(database: Database) -> None:
    with pytest.raises(ConfigurationError, match=r"named 'default' \(it has none\)"):
        unit_of({})

    async def asks_for_another(scope: Scope, *_: Any) -> None:
        unit_of(scope, "other")

    exchange = await asgi.request(around(asks_for_another, database), "/")
    assert "named 'other' (it has 'default')" in str(exchange.error)


async def test_the_lifespan_passes_through(database: Database) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})

    async with asgi.running(around(app, database)):
        pass
    assert "reviewpoint_db" not in seen[0]


async def test_a_success_is_committed_before_it_leaves(database: Database) -> None:
    async def look(message: Message) -> None:
        assert await stored(database) == ["note"]

    exchange = await asgi.request(around(writes, database), "/200", on_message=look)
    assert exchange.status == 200
    assert held(database) == 0


async def test_an_error_status_rolls_back(database: Database) -> None:
    assert (await asgi.request(around(writes, database), "/404")).status == 404
    assert await stored(database) == []


async def test_the_application_may_say_which_statuses_commit(database: Database) -> None:
    inner = CommitMiddleware(
        writes,
        database,
        answer=Answered(),
        commits=lambda status: status == 404,
    )
    app = UnitOfWorkMiddleware(inner, database, commit="autocommit", origin=str)
    assert (await asgi.request(app, "/404")).status == 404
    assert await stored(database) == ["note"]


async def test_a_function_after_commit_may_register_another_one(database: Database) -> None:
    run: list[str] = []

    async def registers(scope: Scope, _: Receive, send: Send) -> None:
        session = unit_of(scope).session
        await write(session, "note")
        after_commit(session, lambda: after_commit(session, lambda: run.append("second")))
        await send(dict(OK))
        await send(dict(END))

    assert (await asgi.request(around(registers, database), "/")).status == 200
    assert run == ["second"]
    assert held(database) == 0


async def catches(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers what its handler raises with a success, as a framework's exception handler may."""
    try:
        await write(unit_of(scope).session, "half")
        raise LookupError
    except LookupError:
        await send(dict(OK))
        await send(dict(END))


@pytest.mark.parametrize(
    ("frameworks", "kept"), [(("another.", "tests."), []), (("another.",), ["half"])]
)
async def test_the_frameworks_answer_to_an_error_commits_nothing(
    database: Database, frameworks: tuple[str, ...], kept: list[str]
) -> None:
    """An application that catches an error itself goes on by itself."""
    exchange = await asgi.request(around(catches, database, frameworks=frameworks), "/")
    assert exchange.status == 200
    assert await stored(database) == kept
    assert held(database) == 0


async def test_what_is_handled_around_the_application_is_no_error_of_its_handler(
    database: Database,
) -> None:
    app = around(writes, database, frameworks=("tests.",))
    try:
        raise LookupError
    except LookupError:
        await asgi.request(app, "/200")
    assert await stored(database) == ["note"]


async def test_a_middleware_that_tries_again_begins_anew(database: Database) -> None:
    tries: list[str] = []

    async def fails_once(scope: Scope, receive: Receive, send: Send) -> None:
        tries.append(f"try {len(tries) + 1}")
        await write(unit_of(scope).session, tries[-1])
        if len(tries) == 1:
            raise LookupError
        await send(dict(OK))
        await send(dict(END))

    def again(app: Application) -> Application:
        async def try_again(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            except LookupError:
                await app(scope, receive, send)

        return try_again

    assert (await asgi.request(around(fails_once, database, between=again), "/")).status == 200
    assert await stored(database) == ["try 2"]


async def test_in_manual_mode_lost_changes_are_named_with_the_handler(database: Database) -> None:
    with logged() as lines:
        await asgi.request(around(writes, database, commit="manual"), "/200")
    assert [line for line in lines if line.startswith("WARNING|GET /200 answered with success")]
    assert await stored(database) == []


async def test_what_a_scalar_wrote_is_a_lost_change_too(database: Database) -> None:
    """It is not by `execute()` that SQLAlchemy's `scalar()` executes."""

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        statement = insert(notes).values(text="note").returning(notes.c.id)
        await unit_of(scope).session.scalar(statement)
        await send(dict(OK))
        await send(dict(END))

    with logged() as lines:
        await asgi.request(around(app, database, commit="manual"), "/200")
    assert [line for line in lines if line.startswith("WARNING|GET /200 answered with success")]


async def test_a_failed_commit_is_answered_instead_and_logged_once(database: Database) -> None:
    answer = Answered()
    with logged() as lines:
        exchange = await asgi.request(around(writes_an_orphan, database, answer=answer), "/")
    assert exchange.status == 409
    assert [type(error) for error in answer.errors] == [IntegrityError]
    (line,) = lines
    assert line.startswith("INFO|GET /: COMMIT failed: ")
    assert held(database) == 0


async def test_whatever_becomes_of_the_error_in_the_application_it_is_answered(
    database: Database,
) -> None:
    async def swallows(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await writes_an_orphan(scope, receive, send)
        except IntegrityError:
            return

    async def replaces(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await writes_an_orphan(scope, receive, send)
        except IntegrityError as error:
            raise KeyError from error

    for app in (swallows, replaces):
        answer = Answered()
        assert (await asgi.request(around(app, database, answer=answer), "/")).status == 409
        assert [type(error) for error in answer.errors] == [IntegrityError]


async def test_an_application_that_answers_the_error_itself_is_left_alone(
    database: Database,
) -> None:
    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await writes_an_orphan(scope, receive, send)
        except IntegrityError:
            await send({**OK, "status": 418})
            await send(dict(END))

    answer = Answered()
    assert (await asgi.request(around(answers, database, answer=answer), "/")).status == 418
    assert not answer.errors


async def test_the_last_piece_of_a_stream_waits_for_its_commit(database: Database) -> None:
    async def streams(scope: Scope, _: Receive, send: Send) -> None:
        await send(dict(OK))
        await write(unit_of(scope).session, "note")
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await send(dict(END))

    seen: list[list[str]] = []

    async def look(_: Message) -> None:
        seen.append(await stored(database) if len(seen) != 1 else [])

    assert (await asgi.request(around(streams, database), "/", on_message=look)).complete
    assert seen == [[], [], ["note"]]


async def test_a_stream_whose_commit_fails_has_no_end(database: Database) -> None:
    async def streams(scope: Scope, _: Receive, send: Send) -> None:
        await send(dict(OK))
        await write_orphan(unit_of(scope).session)
        await send(dict(END))

    exchange = await asgi.request(around(streams, database), "/")
    assert isinstance(exchange.error, IntegrityError)
    assert not exchange.complete
    assert held(database) == 0


async def test_a_stream_that_returns_before_its_end_is_rolled_back(database: Database) -> None:
    async def leaves(scope: Scope, _: Receive, send: Send) -> None:
        await send(dict(OK))
        await write(unit_of(scope).session, "note")

    await asgi.request(around(leaves, database), "/")
    assert await stored(database) == []


async def test_what_follows_the_response_is_committed_and_a_failure_logged(
    database: Database,
) -> None:
    async def follows(scope: Scope, _: Receive, send: Send) -> None:
        await send(dict(OK))
        await send(dict(END))
        work = write if scope["path"] == "/write" else write_orphan
        await work(unit_of(scope).session, scope["path"])

    assert (await asgi.request(around(follows, database), "/write")).error is None
    assert await stored(database) == ["/write"]
    with logged() as lines:
        assert (await asgi.request(around(follows, database), "/orphan")).error is None
    assert [line for line in lines if "the COMMIT after the response failed" in line]
    assert held(database) == 0


async def test_a_request_that_uses_no_session_costs_none(database: Database) -> None:
    async def idle(scope: Scope, _: Receive, send: Send) -> None:
        await send(dict(OK))
        await send(dict(END))

    before = database.activity.snapshot().sessions_created
    assert (await asgi.request(around(idle, database), "/")).status == 200
    assert database.activity.snapshot().sessions_created == before


async def test_a_session_is_refused_once_its_request_is_over(database: Database) -> None:
    units = []

    async def keeps(scope: Scope, _: Receive, send: Send) -> None:
        units.append(unit_of(scope))
        if scope["path"] == "/used":
            await write(units[-1].session, "note")
        await send(dict(OK))

    for path in ("/used", "/unused"):
        await asgi.request(around(keeps, database), path)
    with pytest.raises(SessionClosedError):
        await write(units[0].session, "late")
    with pytest.raises(SessionClosedError, match="'GET /unused' is over"):
        _ = units[1].session
    with pytest.raises(SessionClosedError):
        _ = units[1].read_session


async def test_an_application_inside_of_another_has_a_unit_of_its_own(database: Database) -> None:
    units = []

    async def inner(scope: Scope, _: Receive, send: Send) -> None:
        units.append(unit_of(scope))
        await write(unit_of(scope).session, "note")
        await send(dict(OK))
        await send(dict(END))

    def outer(app: Application) -> Application:
        async def outside(scope: Scope, receive: Receive, send: Send) -> None:
            units.append(unit_of(scope))
            await app(scope, receive, send)
            assert unit_of(scope) is units[0]

        return outside

    nested = around(inner, database)
    app = UnitOfWorkMiddleware(outer(nested), database, origin=lambda _: "outer")
    assert (await asgi.request(app, "/")).status == 200
    assert units[0] is not units[1]
    assert await stored(database) == ["note"]


async def test_the_origin_is_known_inside_and_gone_outside(database: Database) -> None:
    origins = []

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        origins.append(str(describe_origin()))
        await send(dict(OK))

    scope = asgi.scope_of("http", "/x", headers=[(b"host", b"test"), (b"x-request-id", b"42")])
    await around(app, database)(scope, asyncio.Queue[Any]().get, asyncio.Queue[Any]().put)
    assert origins == ["GET /x [42]"]
    assert current_units.get() is None


# -- WebSockets -----------------------------------------------------------------------------------


def socket_app(*messages: dict[str, Any], orphan: bool = False, crash: bool = False) -> Application:
    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await (write_orphan if orphan else write)(unit_of(scope).session, "note")
        for message in messages:
            await send(message)
        if crash:
            raise KeyError

    return app


async def converse(app: Application) -> tuple[list[Any], BaseException | None]:
    client = asgi.WebSocketClient(app, "/")
    error = await client.ended()
    messages = []
    while not client._outbox.empty():
        messages.append(await client.receive())
    return messages[1:], error


CLOSE = {"type": "websocket.close"}


async def test_a_normal_close_commits(database: Database) -> None:
    messages, error = await converse(around(socket_app({**CLOSE, "code": 1001}), database))
    assert (messages, error) == ([{**CLOSE, "code": 1001}], None)
    assert await stored(database) == ["note"]


async def test_a_close_with_another_code_rolls_back(database: Database) -> None:
    await converse(around(socket_app({**CLOSE, "code": 4000}), database))
    assert await stored(database) == []


async def test_a_commit_that_fails_at_the_close_makes_it_1011(database: Database) -> None:
    with logged() as lines:
        messages, error = await converse(around(socket_app(CLOSE, CLOSE, orphan=True), database))
    assert messages == [{**CLOSE, "code": 1011}, CLOSE]
    assert error is None
    assert len([line for line in lines if "COMMIT failed" in line]) == 1


async def test_a_handler_that_returns_without_a_close_commits(database: Database) -> None:
    assert await converse(around(socket_app(), database)) == ([], None)
    assert await stored(database) == ["note"]


async def test_a_commit_that_fails_after_the_handler_closes_with_1011(database: Database) -> None:
    messages, error = await converse(around(socket_app(orphan=True), database))
    assert (messages, error) == ([{**CLOSE, "code": 1011}], None)


async def test_a_commit_that_fails_after_the_close_is_logged(database: Database) -> None:
    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await send(CLOSE)
        await write_orphan(unit_of(scope).session)

    with logged() as lines:
        assert await converse(around(app, database)) == ([CLOSE], None)
    (line,) = lines
    assert line.startswith("ERROR|")
    assert ": the COMMIT after the response failed: IntegrityError" in line


@pytest.mark.parametrize("gone", [True, False])
async def test_a_client_that_leaves_in_the_middle_of_a_statement_is_no_failed_commit(
    database: Database, gone: bool
) -> None:
    """The statement was cancelled, so that there is nothing to commit; who is still there is told."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        session = unit_of(scope).session
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(session.execute(SLOW), 0.05)
        if gone:
            while (await receive())["type"] != "websocket.disconnect":
                pass

    socket = asgi.WebSocketClient(around(app, database), "/")
    if gone:
        await socket.leave()
    with logged() as lines:
        assert await socket.ended() is None
    sent = []
    while socket.pending:
        sent.append(await socket.receive())
    assert bool([line for line in lines if line.endswith("since the client has left\n")]) is gone
    assert bool([line for line in lines if "COMMIT failed" in line]) is not gone
    assert sent[1:] == ([] if gone else [{**CLOSE, "code": 1011}])
    assert held(database) == 0


async def test_a_socket_whose_handler_fails_rolls_back(database: Database) -> None:
    messages, error = await converse(around(socket_app(crash=True), database))
    assert messages == []
    assert isinstance(error, KeyError)
    assert await stored(database) == []
    assert held(database) == 0


async def test_in_manual_mode_a_socket_commits_nothing(database: Database) -> None:
    await converse(around(socket_app(CLOSE), database, commit="manual"))
    assert await stored(database) == []


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("commit", ["manual", "autocommit"])
async def test_a_request_leaves_nothing_to_the_garbage_collector(
    database: Database, commit: CommitMode, used: bool
) -> None:
    """Scope and unit know each other: as a cycle they would cost a search of the heap, later."""

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        if used:
            await write(unit_of(scope).session, scope["path"])
        await send(dict(OK))
        await send(dict(END))

    serve = around(app, database, commit=commit)
    with garbage(UnitOfWork, Holder, Work, AsyncSession) as left:
        for turn in range(3):
            await asgi.request(serve, f"/{turn}")
    assert left == []


class Connected:
    """A WebSocket as uvicorn has it: whoever has its `send` has its scope too."""

    def __init__(self) -> None:
        self.scope = asgi.scope_of("websocket", "/")
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        """The client only connects."""
        return {"type": "websocket.connect"}

    async def send(self, message: Message) -> None:
        """To the client."""
        self.sent.append(message)


def _noted(scope: Scope) -> Exception:
    """An error as it is where a framework answers by itself."""
    error = DatabaseUnavailableError("It is gone.")
    note_failure(scope, error)
    return error


@pytest.mark.parametrize("how", ["writes", "does nothing", "fails", "finds no database"])
@pytest.mark.parametrize("commit", ["manual", "autocommit"])
async def test_a_socket_leaves_nothing_to_the_garbage_collector(
    database: Database, commit: CommitMode, how: str
) -> None:
    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        if how == "fails":
            raise LookupError
        if how == "finds no database":
            raise _noted(scope)
        if how == "writes":
            await write(unit_of(scope).session, "note")
        await send(dict(CLOSE))

    serve = around(app, database, commit=commit)
    with garbage(Connected, UnitOfWork, Holder, Work, AsyncSession, SocketRefusal) as left:
        socket = Connected()
        with contextlib.suppress(LookupError):
            await serve(socket.scope, socket.receive, socket.send)
        last = socket.sent[-1]
        del socket
    assert left == []
    assert last.get("code") == (1013 if how == "finds no database" else last.get("code"))


@pytest.mark.parametrize("used", [True, False])
async def test_who_asks_too_late_is_told_for_which_request(database: Database, used: bool) -> None:
    late = []

    async def app(scope: Scope, *_: Any) -> None:
        late.append(unit_of(scope))
        if used:
            assert unit_of(scope).session is not None

    await asgi.request(around(app, database), "/papers")
    with pytest.raises(SessionClosedError, match="GET /papers"):
        _ = late[0].read_session
