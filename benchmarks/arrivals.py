"""The open-loop load generator: requests arrive at a rate, whatever becomes of those before.

    python -m benchmarks.arrivals PORT RATE SECONDS PATIENCE
    python -m benchmarks.arrivals PORT CLIENTS SECONDS

Each client asks once and leaves when his patience ends. Without a patience, so many clients ask one
time after the other instead: what the server can serve. It prints one JSON object: how many asked,
were answered, were refused (503), left, and got anything else, and how long a refusal
took (seconds).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Arrivals:
    """Clients that come at a rate, and what became of them.

    Args:
        port: The server's.
        patience: Seconds that each of them waits.
    """

    def __init__(self, port: int, patience: float) -> None:
        self._port = port
        self._patience = patience
        self._free: list[_Streams] = []
        self.counts = {"asked": 0, "answered": 0, "refused": 0, "left": 0, "other": 0}
        self.refusals: list[float] = []

    async def offer(self, rate: float, seconds: float) -> None:
        """Have them come, and wait until all have left."""
        begun = time.perf_counter()
        clients: list[asyncio.Task[None]] = []
        while (elapsed := time.perf_counter() - begun) < seconds:
            due = int(elapsed * rate) - len(clients)
            clients += [asyncio.create_task(self._client()) for _ in range(due)]
            await asyncio.sleep(0.002)
        await asyncio.gather(*clients)

    async def ask_again(self, clients: int, seconds: float) -> None:
        """Have so many ask, each as soon as he is answered."""
        until = time.perf_counter() + seconds

        async def client() -> None:
            while time.perf_counter() < until:
                await self._client()

        await asyncio.gather(*(client() for _ in range(clients)))

    async def _client(self) -> None:
        self.counts["asked"] += 1
        arrived = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience):
                status = await self._ask()
        except TimeoutError:
            self.counts["left"] += 1
            return
        except (OSError, asyncio.IncompleteReadError):
            status = b""
        kind = {b"200": "answered", b"503": "refused"}.get(status, "other")
        self.counts[kind] += 1
        if kind == "refused":
            self.refusals.append(time.perf_counter() - arrived)

    async def _ask(self) -> bytes:
        if self._free:
            reader, writer = self._free.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(_REQUEST)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        self._free.append((reader, writer))
        return head[9:12]


async def _run(port: int, many: float, seconds: float, patience: float = 0) -> dict[str, float]:
    arrivals = Arrivals(port, patience or 60)
    begun = time.perf_counter()
    if patience:
        await arrivals.offer(many, seconds)
    else:
        await arrivals.ask_again(int(many), seconds)
    refusals = sorted(arrivals.refusals) or [0.0]
    slowest = {"median": refusals[len(refusals) // 2], "slowest": refusals[-1]}
    return {**arrivals.counts, **slowest, "seconds": time.perf_counter() - begun}


def main() -> None:
    """Run by arguments."""
    port, *words = sys.argv[1:]
    print(json.dumps(uvloop.run(_run(int(port), *(float(word) for word in words)))))


if __name__ == "__main__":
    main()
