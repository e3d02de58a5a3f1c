"""Python function calls of one request, with observation and without: counted, so the same everywhere.

The event loop's own are left out.

`python -m benchmarks.calls` also names the functions that observation adds.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from collections import Counter
from statistics import median_low
from types import CodeType, FrameType
from typing import Any, Final

from loguru import logger

from benchmarks.contenders import SCHEMA, create
from benchmarks.rows import OURS, UNOBSERVED
from benchmarks.wire import request
from tests.support.run import Run

#: What is counted, and the route that does it.
EXCHANGES: Final = {
    "one SELECT, read session": ("GET", "/read/7"),
    "SELECT + UPDATE + COMMIT": ("GET", "/change/7"),
}
#: Of which the median counts: a timer of the event loop may fall into any of them.
_REQUESTS: Final = 31
#: How often the event loop turns depends on the network, and uvloop's calls cannot be seen.
_OF_LOOP: Final = re.compile(r"/(asyncio/\w+|selectors)\.py$").search
Calls = Counter[CodeType]


def calls(url: str) -> dict[str, dict[str, Calls]]:
    """Count the calls of a warm request, per contender and exchange."""
    gc.disable()  # its callbacks would be counted with whom they happen to interrupt
    try:
        return {name: asyncio.run(_counted(name, url)) for name in (OURS, UNOBSERVED)}
    finally:
        gc.enable()


async def _counted(name: str, url: str) -> dict[str, Calls]:
    app = create(name, url)
    found = {}
    async with app.lifespan():
        for label, (method, path) in EXCHANGES.items():
            for _ in range(5):  # statements are prepared and compiled, the pool is warm
                await request(app, method, path)
            counts = [await _count(app, method, path) for _ in range(_REQUESTS)]
            typical = median_low(count.total() for count in counts)
            found[label] = next(count for count in counts if count.total() == typical)
    return found


async def _count(app: Any, method: str, path: str) -> Calls:
    counted: Calls = Counter()

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and not _OF_LOOP(frame.f_code.co_filename):
            counted[frame.f_code] += 1

    sys.setprofile(profile)
    try:
        await request(app, method, path)
    finally:
        sys.setprofile(None)
    return counted


def main() -> None:
    """Print what observation adds to each exchange, by function."""
    logger.remove()
    run = Run.create()
    try:
        server = run.own_server()
        server.start()
        url = server.create_database("calls")
        server.psql(SCHEMA, "calls")
        counted = calls(url)
        for label in EXCHANGES:
            on, off = counted[OURS][label], counted[UNOBSERVED][label]
            print(f"{label}: {on.total()} calls, without observation {off.total()}")
            for code, more in (on - off).most_common():
                print(f"  {more:3}  {code.co_filename.rpartition('/')[2]}:{code.co_qualname}")
            for code, more in (off - on).most_common():
                print(f"  {-more:3}  {code.co_filename.rpartition('/')[2]}:{code.co_qualname}")
        server.remove()
    finally:
        run.close()


if __name__ == "__main__":
    main()
