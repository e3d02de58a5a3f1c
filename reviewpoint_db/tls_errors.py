"""What is wrong with TLS when a connection fails, and what to do about it."""

from __future__ import annotations

import ssl
from typing import Final, TypeGuard

__all__ = ["connect_fix", "is_tls_refused"]

_ANY: Final = "Check the host, the port and the TLS settings of the URL"
_NAME: Final = (
    "The server's certificate is for another host: connect by a name that it carries, or have one "
    "issued for this name"
)
_OLD: Final = "The server's certificate is not valid now: renew it, and check the clocks"
_REVOKED: Final = "The server's certificate is revoked: renew it, or renew the file of sslcrl"
_AUTHORITY: Final = (
    "sslrootcert must name the file of the authority that signed the server's certificate"
)
_NO_TLS: Final = (
    "The server offers no TLS: set ssl=on there, or take sslmode out of the URL where the network "
    "is trusted"
)
_CLIENT: Final = (
    "If the server asks for a certificate of ours, sslcert and sslkey must name one that the "
    "authority in its ssl_ca_file has signed"
)

# X509_V_ERR_... of OpenSSL, https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/
_FIXES: Final = {9: _OLD, 10: _OLD, 11: _OLD, 12: _OLD, 23: _REVOKED, 62: _NAME, 64: _NAME}


def is_tls_refused(error: BaseException) -> TypeGuard[ConnectionError]:
    """Whether the server answered that it has no TLS, which was asked for."""
    # asyncpg has neither a class nor a code for it; the text is its own, and never translated.
    return type(error) is ConnectionError and "rejected SSL upgrade" in str(error)


def connect_fix(error: OSError) -> str:
    """What to do about an attempt to connect that the network or TLS made fail.

    Args:
        error: Why it failed.

    Example:
        >>> connect_fix(ConnectionRefusedError())
        'Check the host, the port and the TLS settings of the URL'
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _FIXES.get(error.verify_code, _AUTHORITY)
    if isinstance(error, ssl.SSLError) and "ALERT" in str(error).upper():
        return _CLIENT
    return _NO_TLS if is_tls_refused(error) else _ANY
