"""Reviewers and reviews: assigned, written, and refused where the rules say so."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from example_app.tests.service import created

if TYPE_CHECKING:
    from httpx import Response

    from example_app.tests.service import Service


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
