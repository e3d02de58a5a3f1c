"""The report of one process, for the live page: its pools, holders, statements and warnings."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from reviewpoint_db.failures import Failing
from reviewpoint_db.history import Gauges, Sample
from reviewpoint_db.stacks import Frame

__all__ = (
    "MOST_BLAMED",
    "MOST_FRAMES",
    "MOST_HOLDERS",
    "MOST_NOTICES",
    "MOST_ROUTES",
    "MOST_STATEMENTS",
    "MOST_TOLD",
    "MOST_WAITERS",
    "Blocking",
    "HolderReport",
    "HostReport",
    "Notice",
    "Role",
    "Statement",
    "Waiter",
    "WorkerReport",
    "duration",
    "route_of",
)

#: Rows of each table at most: the page is for people.
MOST_HOLDERS: Final = 50
MOST_STATEMENTS: Final = 10
MOST_NOTICES: Final = 20
MOST_WAITERS: Final = 10
#: Routes that are named with how much they hold.
MOST_ROUTES: Final = 5
#: Rows of those whom the headline names.
MOST_BLAMED: Final = 3
#: Lines of a stack at most.
MOST_FRAMES: Final = 30
#: Holders of one process that are told of, so that the headline counts them right; those beyond
#: `MOST_HOLDERS` come without their stack, but for the first of the routes that hold the most.
MOST_TOLD: Final = 500

Role = Literal["primary", "replica"] | None


class HolderReport(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that is out of its pool.

    Args:
        id: Tells it from all others of the host.
        route: Whom to name: the route, the job, or the task where there is nothing better.
        origin: The request or job in full, with the request's id.
        held: Seconds.
        abandoned: The task has ended without returning it.
        pid: The process.
        state: "active", "idle in transaction" or "idle".
        state_for: Since when, in seconds.
        statement: The shape of the last statement.
        place: The function of the application in which the task is now.
        stack: Where the task is now, the innermost call last.
        backend_pid: The server's process for this connection.
    """

    id: str
    route: str
    origin: str | None = None
    held: float = 0.0
    abandoned: bool = False
    pid: int = 0
    state: str | None = None
    state_for: float = 0.0
    statement: str | None = None
    place: str | None = None
    stack: tuple[Frame, ...] = ()
    backend_pid: int | None = None


class Waiter(msgspec.Struct, frozen=True, kw_only=True):
    """Those of one route who wait for a connection: how many, and the longest, in seconds."""

    route: str
    count: int
    longest: float


class Blocking(msgspec.Struct, frozen=True, kw_only=True):
    """A session of the server waits for a lock that another one has.

    Args:
        waiting_pid: The server's process that waits.
        blocking_pid: The server's process that it waits for.
        waiting: Who that is: the route, or what the server knows of it.
        blocking: Who has the lock.
        seconds: How long it has waited.
        place: The function in which the one that has the lock is now.
        waiting_statement: What waits.
        blocking_statement: What the other one ran last.
        blocking_state: The server's word for what the other one does.
    """

    waiting_pid: int
    blocking_pid: int
    waiting: str
    blocking: str
    seconds: float | None = None
    place: str | None = None
    waiting_statement: str | None = None
    blocking_statement: str | None = None
    blocking_state: str | None = None


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One of the slowest statements: its shape, the seconds it took at most, how often, for whom."""

    statement: str
    seconds: float
    count: int
    origin: str | None


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A warning that was logged.

    Args:
        at: The last time (Unix).
        kind: Of what.
        text: Its words the last time.
        pid: The process.
        count: How often it was said in the same words, figures aside.
    """

    at: float
    kind: str
    text: str
    pid: int
    count: int = 1


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """One host of the database.

    Args:
        host: Its name and port.
        role: "primary", "replica"; None where nothing is known.
        alive: Whether it answered the last time; None where nobody asked of late.
        watched: Whether it is one of `read_url`, which are asked twice a second; of the others it is
            known what the last connects have met.
        used: Whether it gets what it is there for: connections, or the reads.
        lag: Seconds that a replica is behind at most; None where that is not known.
        out: Its connections in use; None where that is not known of this host alone.
        open: Its open connections.
        note: In words: what it does, or why it is left out.
    """

    host: str
    role: Role = None
    alive: bool | None = None
    watched: bool = False
    used: bool = False
    lag: float | None = None
    out: int | None = 0
    open: int = 0
    note: str = ""


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One process.

    Args:
        pid: Its id.
        gauges: All its pools together.
        outage: Why the database cannot be reached from it, if that is so.
        outage_for: Since when, in seconds.
        outage_ago: Seconds since an attempt failed the last time.
        holders: Who has connections, the longest first; the oldest of very many.
        routes: How many connections each route has, over all holders.
        waiters: Who waits for a connection.
        history: Its last minutes.
        statements: Its slowest statements.
        notices: Its recent warnings, the newest first.
        failing: Its statements that failed in the last seconds.
        succeeded: How many did not, meanwhile.
        late: By how many seconds its event loop was late, in the last moments.
        late_place: The line that blocked it, as far as it is known.
        hosts: The database's hosts as it sees them; none where there is but one.
    """

    pid: int
    gauges: Gauges
    outage: str | None = None
    outage_for: float | None = None
    outage_ago: float | None = None
    holders: tuple[HolderReport, ...] = ()
    routes: dict[str, int] = {}
    waiters: tuple[Waiter, ...] = ()
    history: tuple[Sample, ...] = ()
    statements: tuple[Statement, ...] = ()
    notices: tuple[Notice, ...] = ()
    failing: tuple[Failing, ...] = ()
    succeeded: int = 0
    late: float | None = None
    late_place: str | None = None
    hosts: tuple[HostReport, ...] = ()

    @property
    def full(self) -> bool:
        """Whether nobody gets a connection before somebody returns one."""
        limit = self.gauges.limit
        return limit is not None and 0 < limit <= self.gauges.out


def route_of(origin: str) -> str:
    """Shorten `PATCH /papers/{id} patch_paper [request]` to `PATCH /papers/{id}`."""
    words = origin.split(" ")
    with_path = len(words) > 1 and words[0].isupper() and words[1].startswith("/")
    return " ".join(words[:2]) if with_path else origin


def duration(seconds: float) -> str:
    """Say how long in words: `0.4 s`, `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
