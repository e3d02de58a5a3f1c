"""PostgreSQL's wire protocol, as far as counting round trips and finding a statement need it.

Protocol 3: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_SSL_REQUEST = 80877103
_GSS_REQUEST = 80877104
_CANCEL_REQUEST = 80877102

# Client messages that the server answers up to ReadyForQuery: Query, Sync, FunctionCall.
_ASKING = b"QSF"
# Flush makes the server send what it has, without ReadyForQuery; `p` is each step of a login.
_FLUSH = b"H"
_LOGIN_STEP = b"p"
_READY_FOR_QUERY = b"Z"


@dataclass
class Counters:
    """What went through a relay since its start or its last `reset()`."""

    opened: int = 0
    """Connections whose client sent its StartupMessage."""
    cancels: int = 0
    """Connections that carried a CancelRequest."""
    login_round_trips: int = 0
    """Waits until a connection may be used: TLS question, StartupMessage, steps of the login."""
    round_trips: int = 0
    """Waits for an answer after that: see Conversation."""
    flights: deque[str] = field(default_factory=lambda: deque(maxlen=1000))
    """The client's messages of each round trip, as `Q(BEGIN;)` or `P(SELECT 1) D S`."""

    def reset(self) -> None:
        """Sets all to zero."""
        self.opened = self.cancels = self.login_round_trips = self.round_trips = 0
        self.flights.clear()


class Conversation:
    """One connection's messages, both ways.

    A round trip is a client's *flight* and its answer: it begins with a message that the server
    answers (Query, Sync, FunctionCall, or a Flush) while no answer is outstanding, and lasts until
    the server's ReadyForQuery has answered each Query, Sync and FunctionCall of it. What a client
    pipelines before it saw the first answer belongs to the same flight; a Flush and its Sync are
    two trips only if something was sent back between the two. For a client that waits for each
    answer, as asyncpg does, the count is exact, and it is complete before the client reads the
    answer. Terminate is no round trip: nobody waits for it.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._from_client = bytearray()
        self._from_server = bytearray()
        self._started = False
        self._logged_in = False
        self._one_byte_answer = False
        self._outstanding = 0
        self._flushed = False
        self._flight: list[str] = []
        self.opaque = False
        """After TLS began nothing more can be read, and nothing is counted."""

    def client_sent(self, data: bytes) -> list[bytes]:
        """The complete messages in what the client has sent so far."""
        if self.opaque:
            return [data]
        self._from_client += data
        messages = []
        while message := _take(self._from_client, typed=self._started):
            self._count_request(message)
            messages.append(message)
        return messages

    def server_sent(self, data: bytes) -> list[bytes]:
        """The complete messages in what the server has sent so far."""
        if self.opaque:
            return [data]
        if self._one_byte_answer:
            self._one_byte_answer = False
            self.opaque = data[:1] in b"SG"
            return [data]
        self._from_server += data
        messages = []
        while message := _take(self._from_server, typed=True):
            if message[:1] == _READY_FOR_QUERY:
                self._logged_in = True
                self._outstanding = max(0, self._outstanding - 1)
            self._flushed = False
            messages.append(message)
        return messages

    def _count_request(self, message: bytes) -> None:
        counters = self._counters
        if not self._started:
            code = int.from_bytes(message[4:8], "big")
            if code == _CANCEL_REQUEST:
                counters.cancels += 1
                return
            counters.login_round_trips += 1
            self._one_byte_answer = code in (_SSL_REQUEST, _GSS_REQUEST)
            if not self._one_byte_answer:
                self._started = True
                counters.opened += 1
            return
        kind = message[:1]
        if not self._logged_in:
            counters.login_round_trips += kind == _LOGIN_STEP
            return
        self._flight.append(describe(message))
        if kind in _ASKING or kind == _FLUSH:
            if not self._outstanding and not self._flushed:
                counters.round_trips += 1
                counters.flights.append("")
            if kind == _FLUSH:
                self._flushed = True
            else:
                self._outstanding += 1
            counters.flights[-1] = " ".join(filter(None, [counters.flights[-1], *self._flight]))
            self._flight.clear()


def describe(message: bytes) -> str:
    """A client's message in short: its type, and the statement that it bears."""
    kind = chr(message[0])
    text = statement_of(message)
    return f"{kind}({text})" if text is not None else kind


def statement_of(message: bytes) -> str | None:
    """The SQL of a Query or Parse message."""
    if message[:1] == b"Q":
        return message[5:-1].decode()
    if message[:1] == b"P":
        return message[5:].split(b"\0", 2)[1].decode()
    return None


def rewritten(message: bytes, sql: str) -> bytes:
    """A Query or Parse message with another statement."""
    old = statement_of(message)
    assert old is not None
    body = message[5:].replace(old.encode() + b"\0", sql.encode() + b"\0", 1)
    return _message(message[:1], body)


def query(sql: str) -> bytes:
    """A Query message."""
    return _message(b"Q", sql.encode() + b"\0")


def error(sqlstate: str, text: str) -> bytes:
    """What a server answers when a statement failed and its transaction is over."""
    fields = {"S": "ERROR", "V": "ERROR", "C": sqlstate, "M": text}
    body = b"".join(name.encode() + value.encode() + b"\0" for name, value in fields.items())
    return _message(b"E", body + b"\0") + _message(_READY_FOR_QUERY, b"I")


def is_ready_for_query(message: bytes) -> bool:
    """Whether a server's message ends its answer."""
    return message[:1] == _READY_FOR_QUERY


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def _take(buffer: bytearray, *, typed: bool) -> bytes:
    """Takes the first complete message off a buffer; empty when there is none."""
    start = 1 if typed else 0
    if len(buffer) < start + 4:
        return b""
    end = start + int.from_bytes(buffer[start : start + 4], "big")
    if len(buffer) < end:
        return b""
    message = bytes(buffer[:end])
    del buffer[:end]
    return message
