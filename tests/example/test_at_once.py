"""Requests at the same moment, with real connections: in the sandbox they would take turns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from httpx import Response

    from example_app.tests.service import Service

WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def at_once(url: str, table: str, requests: Sequence[Awaitable[Response]]) -> list[int]:
    """Send requests that all wait for a lock on the table's rows; return their statuses, sorted."""
    async with asyncpg.create_pool(url, min_size=2, max_size=2) as pool:
        # Inside of the transaction, pg_stat_activity would stay as it was at the first look.
        async with pool.acquire() as watcher, pool.acquire() as locker:
            lock = locker.transaction()
            await lock.start()
            await locker.execute(f"SELECT 1 FROM {table} FOR UPDATE")
            answers = asyncio.gather(*requests)
            async with asyncio.timeout(10):
                while await watcher.fetchval(WAITING) < len(requests):
                    await asyncio.sleep(0.02)
            await lock.rollback()
        return sorted(answer.status_code for answer in await answers)


async def test_reviews_at_the_same_moment_count_once(
    postgres_service: Service, postgres_url: str
) -> None:
    service = postgres_service
    paper = (await service.submit())["id"]
    reviewer = await service.join("Rita")
    await service.assign(paper, reviewer)
    reviews = [service.review(paper, reviewer, score) for score in (1, 2, 3)]
    assert await at_once(postgres_url, "review", reviews) == [201, 409, 409]
    assert len((await service.http.get(f"/papers/{paper}")).json()["scores"]) == 1


async def test_decisions_at_the_same_moment_count_once(
    postgres_service: Service, postgres_url: str
) -> None:
    paper = await postgres_service.reviewed_paper(3, 3)
    decisions = [postgres_service.decide(paper, verdict) for verdict in ("accepted", "rejected")]
    assert await at_once(postgres_url, "paper", decisions) == [200, 409]


async def test_many_decisions_count_once(service: Service) -> None:
    """On SQLite too, which has no row locks: there, a writer waits from its first statement."""
    paper = await service.reviewed_paper(3, 3)
    verdicts = ("accepted", "rejected", "accepted", "rejected")
    answers = await asyncio.gather(*(service.decide(paper, verdict) for verdict in verdicts))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]


async def test_joining_at_the_same_moment_with_one_email_is_one_reviewer(service: Service) -> None:
    body = {"name": "Rita", "email": "rita@example.org"}
    answers = await asyncio.gather(*(service.http.post("/reviewers", json=body) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
