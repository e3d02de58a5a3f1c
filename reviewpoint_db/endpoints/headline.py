"""The sentence at the top of the page: who is to blame, in words."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from reviewpoint_db.endpoints import culprits, faults
from reviewpoint_db.endpoints.finding import State
from reviewpoint_db.endpoints.report import Blocking, HostReport, WorkerReport
from reviewpoint_db.health_report import HealthReport

__all__ = ("Headline", "headline")


class Headline(msgspec.Struct, frozen=True):
    """The state in one word and in one sentence, and what else is wrong."""

    state: State
    text: str
    also: tuple[str, ...] = ()


def headline(
    workers: Sequence[WorkerReport],
    blockings: Sequence[Blocking] = (),
    *,
    silent: Sequence[int] = (),
    hosts: Sequence[HostReport] = (),
    leak_threshold: float = 30.0,
    idle_threshold: float = 5.0,
    health: HealthReport | None = None,
    server_error: str | None = None,
    address: str | None = None,
) -> Headline:
    """Name the culprit.

    Where several things are wrong, the one that explains the most connections comes first, and the
    others follow in `also`.

    Args:
        workers: The processes that answered.
        blockings: Who waits for whom on the server.
        silent: The processes that did not answer.
        hosts: The database's hosts, where there are several.
        leak_threshold: Seconds after which a connection is held for too long.
        idle_threshold: Seconds after which a transaction in which nothing happens is too long.
        health: What the last health check found out.
        server_error: Why the server did not say who waits for whom, if it was asked.
        address: Where the database is, if it is in one place.
    """
    unreachable = faults.unreachable(workers, health, address)
    findings = [
        *unreachable,
        *sorted(
            [
                *culprits.leaks(workers),
                *culprits.blocked(blockings),
                *culprits.exhausted(workers, blockings),
            ],
            key=lambda finding: -finding.weight,
        ),
        *faults.failing(workers),
        *faults.silent(silent),
        *faults.failing_checks(health),
        *faults.host_faults(hosts, down=bool(unreachable)),
        *faults.late(workers),
        *faults.unseen(None if unreachable else server_error),
    ]
    if not findings:
        findings = [
            *culprits.held_long(workers, leak_threshold),
            *culprits.idle(workers, idle_threshold),
            *culprits.busy(workers),
            culprits.calm(workers),
        ][:1]
    first, *others = findings
    return Headline(first.state, first.text, tuple(other.text for other in others))
