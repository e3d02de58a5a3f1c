"""Goodput at ten times the capacity: requests arrive in an open loop, each client waits a second.

The server, the generator and the database are processes of their own, and what limits is the pool:
five connections with statements that sleep for 0.1 s. A client that gave up is still served: an ASGI
handler is not cancelled when its client leaves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from tests.support.server import AsgiServer

#: Of the pool, and seconds that a request holds one: 50 requests a second at the most.
CONNECTIONS = 5
WORK = 0.1
#: Seconds that a client waits.
PATIENCE = 1.0


@dataclass(frozen=True)
class Overload:
    """What became of the requests.

    Args:
        goodput: Those answered in time, as a share of what five clients get who ask again and again.
        refused: How many got a 503.
        median: Seconds until a refusal.
        slowest: Seconds until the slowest one.
    """

    goodput: float
    refused: int
    median: float
    slowest: float


def overload(url: str, *, times: float, seconds: float, target: float) -> Overload:
    """Offer `times` the capacity for `seconds`.

    Args:
        url: The database.
        times: 1 is as many requests as the pool can serve.
        seconds: How long they arrive.
        target: `pool.queue_target`; 0 sheds nothing.
    """
    env = {
        "BENCH_URL": url,
        "BENCH_QUEUE_TARGET": str(target),
        "REVIEWPOINT_ENVIRONMENT": "dev",
    }
    options = (
        *("--log-level", "critical", "--no-access-log"),
        # Who waits without queue_target would be served first; and clients come back late.
        *("--timeout-graceful-shutdown", "1", "--timeout-keep-alive", "60"),
    )
    with AsgiServer("benchmarks.overloaded:app", env=env, options=options) as server:
        arrive(server.port, CONNECTIONS, 0.5)  # the connections are open
        alone = arrive(server.port, CONNECTIONS, 1.5)
        capacity = alone["answered"] / alone["seconds"]
        found = arrive(server.port, capacity * times, seconds, PATIENCE)
    if found["other"]:
        raise RuntimeError(f"neither served nor refused: {found}")
    return Overload(
        found["answered"] / (capacity * seconds),
        int(found["refused"]),
        found["median"],
        found["slowest"],
    )


def arrive(
    port: int, many: float, seconds: float, patience: float | None = None
) -> dict[str, float]:
    """Run the generator."""
    words = [str(word) for word in (port, many, seconds, patience) if word is not None]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.arrivals", *words],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found
