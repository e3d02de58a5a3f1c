"""Reviewers and reviews: assigned, written, and refused where the rules say so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from tests.example.service import created

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from httpx import Response

    from tests.example.service import Service


WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def conflict(answer: Response) -> str:
    assert answer.status_code == 409, answer.text
    return str(answer.json()["detail"])


async def test_an_assigned_reviewer_reviews(service: Service) -> None:
    paper = (await service.submit())["id"]
    reviewer = await service.join("Rita")
    assigned = created(await service.assign(paper, reviewer))
    assert (assigned["score"], assigned["reviewer"]["name"]) == (None, "Rita")
    assert (await service.http.get(f"/papers/{paper}")).json()["status"] == "under_review"

    review = created(await service.review(paper, reviewer, 5))
    assert (review["id"], review["score"], review["comment"]) == (assigned["id"], 5, "Read it.")
    assert (await service.http.get(f"/papers/{paper}/reviews")).json() == [review]
    assert (await service.http.get(f"/papers/{paper}")).json()["scores"] == [5]


async def test_a_reviewer_reviews_a_paper_once(service: Service) -> None:
    paper = (await service.submit())["id"]
    reviewer = await service.join("Rita")
    await service.assign(paper, reviewer)
    created(await service.review(paper, reviewer, 5))
    assert (
        conflict(await service.review(paper, reviewer, 1))
        == "Rita has reviewed this paper already."
    )
    assert (await service.http.get(f"/papers/{paper}")).json()["scores"] == [5]


async def test_a_reviewer_is_assigned_once(service: Service) -> None:
    paper = (await service.submit())["id"]
    reviewer = await service.join("Rita")
    created(await service.assign(paper, reviewer))
    text = conflict(await service.assign(paper, reviewer))
    assert text == "Rita is assigned to this paper already."


async def test_authors_do_not_review_their_own_papers(service: Service) -> None:
    paper = (await service.submit(author_email="ADA@example.org"))["id"]
    author = await service.join("Ada")
    text = conflict(await service.assign(paper, author))
    assert text == "Ada wrote this paper, and cannot review it."
    assert conflict(await service.review(paper, author)) == "Ada is not assigned to this paper."


async def test_a_decided_paper_takes_nothing_more(service: Service) -> None:
    paper = await service.reviewed_paper(4, 4)
    late = await service.join("Late")
    await service.assign(paper, late)
    await service.decide(paper)
    text = "This paper is accepted: nothing can be added or changed."
    assert conflict(await service.review(paper, late)) == text
    assert conflict(await service.assign(paper, await service.join("Later"))) == text


async def test_unknown_ids_are_404_in_words(service: Service) -> None:
    paper = (await service.submit())["id"]
    nobody, nothing = str(uuid4()), str(uuid4())
    for answer in (await service.assign(paper, nobody), await service.review(paper, nobody)):
        assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such reviewer.")
    reviewer = await service.join("Rita")
    for answer in (
        await service.assign(nothing, reviewer),
        await service.review(nothing, reviewer),
    ):
        assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such paper.")


@pytest.mark.parametrize("score", [0, 6])
async def test_a_score_is_between_1_and_5(service: Service, score: int) -> None:
    paper = (await service.submit())["id"]
    answer = await service.review(paper, await service.join("Rita"), score)
    assert answer.status_code == 400
    assert answer.json()["extra"][0]["key"] == "score"


async def test_an_email_joins_once(service: Service) -> None:
    await service.join("Rita")
    answer = await service.http.post(
        "/reviewers", json={"name": "Another Rita", "email": "RITA@example.org"}
    )
    assert conflict(answer) == "There is a reviewer with this email already."
    listed = (await service.http.get("/reviewers", params={"page_size": 100})).json()
    names = [reviewer["name"] for reviewer in listed["items"]]
    assert "Rita" in names
    assert "Another Rita" not in names


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
