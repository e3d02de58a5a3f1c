"""Read your writes: a client that has written reads from no replica that lacks what it wrote.

After a COMMIT the response has a signed token with the primary's WAL position (LSN), as a cookie and
as a header. The client sends it back, and its read sessions wait for a replica that has replayed that
far, or use the primary. A token is valid for as long as a replica may lag: what is older is on all of
them. A forged, truncated or old token counts as none.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any, Final

from loguru import logger
from sqlalchemy import text

from reviewpoint_db.lsn import MAX_LSN, parse_lsn
from reviewpoint_db.read_session import read_engine_of
from reviewpoint_db.redaction import safe_error

if TYPE_CHECKING:
    from reviewpoint_db.asgi_types import Message, Scope, Send
    from reviewpoint_db.config import DatabaseConfig
    from reviewpoint_db.database import Database
    from reviewpoint_db.transaction import UnitOfWork

__all__ = ["ReadYourWrites", "Tokens", "lsn_of_commits"]

#: Seconds that the clocks of two processes may differ.
_SKEW: Final = 5.0
#: Seconds for asking the primary; the answer waits for it.
_ASKING: Final = 1.0
#: The record of a COMMIT is before this position, flushed or not.
_INSERT_LSN: Final = text("SELECT pg_current_wal_insert_lsn()::text")


class Tokens:
    """Makes and reads the tokens of one database.

    Args:
        config: Has the secret, the database's name, and how far replicas may be behind.
    """

    def __init__(self, config: DatabaseConfig) -> None:
        secret = config.read_your_writes_secret or ""
        self._key = hashlib.sha256(f"{config.name}\0{secret}".encode()).digest()
        #: Seconds for which a token is good.
        self.lifetime = config.max_replica_lag + _SKEW

    def make(self, lsn: int) -> str:
        """Return the token for an LSN."""
        what = f"{lsn:x}.{int(time.time())}"
        return f"{what}.{self._sign(what)}"

    def read(self, token: str) -> int | None:
        """Return the LSN that a token names; None for one that is not ours, or too old."""
        what, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._sign(what).encode(), signature.encode()):
            return None
        lsn, _, made = what.partition(".")
        return int(lsn, 16) if abs(time.time() - int(made)) <= self.lifetime else None

    def _sign(self, what: str) -> str:
        return hmac.new(self._key, what.encode(), hashlib.sha256).hexdigest()


async def lsn_of_commits(database: Database) -> int:
    """Ask the primary for an LSN after all that is stored; `MAX_LSN` when it does not answer."""
    try:
        async with (
            asyncio.timeout(_ASKING),
            read_engine_of(database.engine).connect() as connection,
        ):
            return parse_lsn(await connection.scalar(_INSERT_LSN))
    except Exception as error:  # noqa: BLE001 - the data is stored, so the answer is a success
        logger.debug("The place of a COMMIT is unknown: {}", safe_error(error))
        return MAX_LSN


class ReadYourWrites:
    """The tokens in one database's requests and responses.

    Args:
        database: With `read_your_writes` in its settings.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tokens = Tokens(database.config)
        #: The name of the cookie, and of the header.
        self.cookie = f"reviewpoint_db_{database.name}"
        self.header = f"x-reviewpoint-db-{database.name}".lower().replace("_", "-").encode()

    def required_lsn(self, scope: Scope) -> int | None:
        """Return the highest LSN in a request's tokens: what its client must see."""
        found = [
            lsn
            for token in self._brought(scope.get("headers") or ())
            if (lsn := self._tokens.read(token)) is not None
        ]
        return max(found, default=None)

    def _brought(self, headers: Any) -> list[str]:
        tokens = []
        for name, value in headers:
            if name == self.header:
                tokens.append(value.decode("latin-1"))
            elif name == b"cookie":
                # Not by `http.cookies`: one cookie that it does not like loses all that follow.
                for each in value.decode("latin-1").split(";"):
                    key, _, token = each.strip().partition("=")
                    if key == self.cookie:
                        tokens.append(token)
        return tokens

    def telling(self, unit: UnitOfWork, scope: Scope, send: Send) -> Send:
        """Wrap `send`: a response gets the token when its request has stored something by then."""

        async def send_with_token(message: Message) -> None:
            if message["type"] == "http.response.start" and unit.stored:
                lsn = MAX_LSN if unit.unanswered else await lsn_of_commits(self._database)
                token = self._tokens.make(lsn)
                secure = "; Secure" if scope.get("scheme") == "https" else ""
                cookie = (
                    f"{self.cookie}={token}; Path=/; Max-Age={round(self._tokens.lifetime)}; "
                    f"HttpOnly; SameSite=Lax{secure}"
                )
                headers = [
                    *message.get("headers", ()),
                    (self.header, token.encode()),
                    (b"set-cookie", cookie.encode()),
                ]
                message = {**message, "headers": headers}  # the old one is in a cache, maybe
            await send(message)

        return send_with_token
