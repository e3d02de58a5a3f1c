"""What the driver is told at each connect: limits, names, keepalives, where the password comes from."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from reviewpoint_db.sqlite_connection import SQLiteConnection

if TYPE_CHECKING:
    from reviewpoint_db.config import DatabaseConfig
    from reviewpoint_db.passwords import Password
    from reviewpoint_db.target import Target

__all__ = ["make_connect_args", "xdist_worker"]

# A host that vanishes says no goodbye: its transactions, and their locks, end after 30 + 3 x 10 s
# instead of the server's default of two hours. Over a Unix socket they have no effect. PgBouncer
# refuses them: pgbouncer.py leaves out what begins with tcp_.
_KEEPALIVES: Final = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}


def make_connect_args(
    config: DatabaseConfig, target: Target, password: Password | None, *, writable: bool
) -> dict[str, Any]:
    """Return the arguments for the driver, to give to SQLAlchemy as `connect_args`.

    Args:
        config: The settings.
        target: Which of its URLs.
        password: Asked at each connect; None where the URL has none.
        writable: Of several hosts want one that can be written to, unless the URL says otherwise.
    """
    if target.backend == "sqlite":
        # The wait for another connection's lock is a part of acquiring.
        timeout = target.url.query.get("timeout", config.effective_pool.timeout)
        return {
            "check_same_thread": False,
            "timeout": float(str(timeout)),
            "factory": partial(SQLiteConnection, query_timeout=config.query_timeout),
        }
    arguments: dict[str, Any] = {
        "timeout": config.connect_timeout,
        "command_timeout": config.query_timeout,
        **({"target_session_attrs": "read-write"} if writable and len(target.hosts) > 1 else {}),
        **target.arguments,
        "server_settings": {
            "application_name": _application_name(config.name),
            **(_KEEPALIVES if config.pgbouncer is None else {}),  # else it is in between
            **target.arguments.get("server_settings", {}),
        },
    }
    if password is not None:
        arguments["password"] = password
    return arguments


def _application_name(name: str) -> str:
    pid = os.getpid()
    if worker := xdist_worker():
        return f"reviewpoint_test_{worker}_{pid}"
    # PostgreSQL keeps 63 bytes; the process id at the end is what tells workers apart.
    end = f":{pid}"
    host = socket.gethostname().encode("ascii", "replace").decode()
    return f"{name}@{host}"[: 63 - len(end)] + end


def xdist_worker() -> str | None:
    """Return the name of this worker of parallel tests, if it is one."""
    return os.environ.get("PYTEST_XDIST_WORKER") or None
