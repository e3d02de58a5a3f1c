"""The load generator: one process, N keep-alive connections, every answer checked.

    python -m benchmarks.load PORT METHOD PATH CLIENTS SECONDS

prints one JSON object: requests, errors, seconds, and latencies in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

#: Requests before the clock starts, per client.
WARM_UP = 30


class _Client:
    """One connection, on which a request follows the answer to the one before."""

    def __init__(self, method: str, path: str, number: int) -> None:
        self._method = method
        self._path = path
        self._paper = number * 131
        self.taken: list[float] = []
        self.errors: list[str] = []

    async def connect(self, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(WARM_UP):
            await self._ask()
        self.taken.clear()

    async def ask(self, until: float) -> None:
        while time.perf_counter() < until:
            await self._ask()
        self._writer.close()

    async def _ask(self) -> None:
        self._paper = (self._paper + 1) % 1000
        started = time.perf_counter()
        self._writer.write(
            f"{self._method} {self._path}/{self._paper} HTTP/1.1\r\n"
            "Host: bench\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        self.taken.append(time.perf_counter() - started)
        right = {"title": f"Paper {self._paper}"}
        if not head.startswith(b"http/1.1 20") or json.loads(body) != right:
            self.errors.append(f"{head[:40]!r} {body[:80]!r}")


async def _run(port: int, method: str, path: str, clients: int, seconds: float) -> dict[str, Any]:
    all_of_them = [_Client(method, path, number) for number in range(clients)]
    await asyncio.gather(*(client.connect(port) for client in all_of_them))
    started = time.perf_counter()
    await asyncio.gather(*(client.ask(started + seconds) for client in all_of_them))
    elapsed = time.perf_counter() - started
    taken = [one for client in all_of_them for one in client.taken]
    errors = [one for client in all_of_them for one in client.errors]
    taken.sort()

    def percentile(share: float) -> float:
        return taken[min(int(len(taken) * share), len(taken) - 1)] * 1000

    return {
        "requests": len(taken),
        "per_second": len(taken) / elapsed,
        "errors": len(errors),
        "first_error": errors[0] if errors else None,
        "p50": percentile(0.5),
        "p99": percentile(0.99),
        "p999": percentile(0.999),
    }


def main() -> None:
    """Run by arguments."""
    port, method, path, clients, seconds = sys.argv[1:6]
    print(json.dumps(uvloop.run(_run(int(port), method, path, int(clients), float(seconds)))))


if __name__ == "__main__":
    main()
