"""Who may see more than the health of a database."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from reviewpoint_db.endpoints.reply import Reply, json_reply
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.settings import read_secret, refuse

if TYPE_CHECKING:
    from reviewpoint_db.config import DatabaseConfig

__all__ = ("TOKEN_VARIABLE", "Access")

TOKEN_VARIABLE: Final = "REVIEWPOINT_DB_DEBUG_TOKEN"  # noqa: S105  the name of the variable, no secret


class Access:
    """Decides about the guarded routes: whether they exist, and who is let in.

    In dev and test they are open. In prod they exist only when the application passed guards of
    its own or a token. A token, once given, is asked for in every environment: as `Bearer`, or as
    the password of `Basic` under any user name, since a browser cannot send a Bearer header.

    Example:
        >>> from reviewpoint_db.config import DatabaseConfig
        >>> config = DatabaseConfig(url="sqlite:///a.db", environment="prod")
        >>> Access(config, guards_given=False, debug_token=None).mounted
        False
        >>> access = Access(config, guards_given=False, debug_token="s3cret")
        >>> access.mounted, access.check("Bearer s3cret"), access.check("Bearer no").status
        (True, None, 401)

    Args:
        config: Says whether debug is allowed here.
        guards_given: The application's own guards stand before the routes.
        debug_token: The token; None takes `REVIEWPOINT_DB_DEBUG_TOKEN`, or what is in the file that
            `REVIEWPOINT_DB_DEBUG_TOKEN_FILE` names, where one is set.

    Raises:
        ConfigurationError: The token is empty, or has white space around it; or its file cannot be
            read.
    """

    __slots__ = ("_digest", "mounted")

    def __init__(
        self, config: DatabaseConfig, *, guards_given: bool, debug_token: str | None
    ) -> None:
        source = "debug_token"
        token: object = debug_token
        if token is None:
            source = TOKEN_VARIABLE if os.environ.get(TOKEN_VARIABLE) else f"{TOKEN_VARIABLE}_FILE"
            # A variable set to nothing is a variable that is not set, as deployment tools write it.
            token = read_secret(os.environ, TOKEN_VARIABLE)
        if token is not None and not isinstance(token, str):
            kind = type(token).__name__
            raise refuse("debug_token", f"a {kind}", "not a string", "give a long random text")
        if token is not None and (not token or token != token.strip()):
            msg = (
                f"{source} is empty or has white space around it, so no client could send it; "
                "give a long random text, or leave it out."
            )
            raise ConfigurationError(msg)
        # Digests have one length, so that not even the token's length can be measured.
        self._digest = None if token is None else sha256(token.encode()).digest()
        self.mounted: bool = config.debug_allowed or guards_given or token is not None
        """Whether the guarded routes exist at all."""

    def shown(self, authorization: str | None) -> bool:
        """Whether a request bears the token, where there is one; without one nobody does.

        Args:
            authorization: As for `check()`.
        """
        return self._digest is not None and self.check(authorization) is None

    def check(self, authorization: str | None) -> Reply | None:
        """Judge a request by its `Authorization` header.

        Args:
            authorization: The header's value as the server decoded it (Latin-1), if there was one.

        Returns:
            None to let the request in, else the answer to send: a 401 that says nothing of us.
        """
        if self._digest is None:
            return None
        offered = sha256(_credential(authorization or "")).digest()
        if hmac.compare_digest(offered, self._digest):
            return None
        return json_reply(
            401,
            {"status_code": 401, "detail": "Unauthorized"},
            headers={"www-authenticate": 'Basic realm="restricted", Bearer realm="restricted"'},
        )


def _credential(authorization: str) -> bytes:
    """The secret inside a header; nothing where there is none, which matches no token."""
    scheme, _, value = authorization.strip().partition(" ")
    try:
        # Servers decode headers as Latin-1: this gives back the bytes that the client sent.
        raw = value.strip().encode("latin-1")
    except UnicodeEncodeError:
        raw = value.strip().encode()  # a framework that decodes them as UTF-8
    if scheme.lower() == "bearer":
        return raw
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(raw, validate=True)
        except binascii.Error:
            return b""
        return decoded.partition(b":")[2]
    return b""
