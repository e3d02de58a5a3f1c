"""The contract's handlers, driven in one process from two threads, each with a loop of its own.

`python -m tests.contract.loops litestar 8` does it eight times, with new threads and loops each
time. It runs in a process of its own, because what it guards against is a crash of the interpreter.
"""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import sys
import threading
from typing import TYPE_CHECKING

from tests.support.asgi import client

if TYPE_CHECKING:
    from tests.contract.apps.shared import Probed

faulthandler.enable()


async def drive(app: Probed, name: str) -> None:
    """Send requests of all kinds at once, and demand right answers."""
    async with client(app) as http:

        async def post(path: str, status: int) -> None:
            answer = await http.post(f"{path}{'&' if '?' in path else '?'}key={name}-{path}")
            assert answer.status_code == status, (path, answer.status_code, answer.text)

        await asyncio.gather(
            *(post(f"/do/store?number={number}", 200) for number in range(4)),
            *(post(f"/do/orphan?number={number}", 409) for number in range(2)),
            *(post(f"/do/isolated?number={number}", 200) for number in range(2)),
            post("/do/crash", 500),
            post("/read/count", 200),
            post("/background/store", 200),
        )
        assert (await http.get(f"/stream/whole?key={name}-stream")).text.count("rows") == 5
        found = (await http.get("/probe")).json()
        assert found["checked_out"] == 0, found
        assert found["open"] > 0, found


def main(adapter: str, times: int) -> None:
    """Run two threads at once, several times."""
    app: Probed = importlib.import_module(f"tests.contract.apps.{adapter}_app").app
    errors: list[BaseException] = []

    def run(name: str) -> None:
        try:
            asyncio.run(drive(app, name))
        except BaseException as error:
            errors.append(error)
            raise

    for time in range(times):
        threads = [threading.Thread(target=run, args=(f"{time}-{n}",)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        if errors or any(thread.is_alive() for thread in threads):
            sys.exit(1)
    asyncio.run(app.database.stop())
    print("done")  # noqa: T201 - what the test waits for


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
