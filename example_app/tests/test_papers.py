"""Papers: submitted, read, listed, searched, decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from example_app.tests.service import PAPER

if TYPE_CHECKING:
    from httpx import Response

    from example_app.tests.service import Service


def refused(answer: Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


async def titles(service: Service, **query: Any) -> list[str]:
    answer = await service.http.get("/papers", params=query)
    assert answer.status_code == 200, answer.text
    return [paper["title"] for paper in answer.json()["items"]]


async def test_a_submitted_paper_can_be_read(service: Service) -> None:
    paper = await service.submit(title="  Trimmed  ", author_email="ADA@Example.org")
    assert paper["title"] == "Trimmed"
    assert paper["author_email"] == "ada@example.org"
    assert (paper["status"], paper["scores"], paper["average_score"]) == ("submitted", [], None)
    assert (await service.http.get(f"/papers/{paper['id']}")).json() == paper


async def test_an_unknown_paper_is_404_in_words(service: Service) -> None:
    assert refused(await service.http.get(f"/papers/{uuid4()}"), 404) == "There is no such paper."
    assert refused(await service.decide(str(uuid4())), 404) == "There is no such paper."
    answer = await service.http.get(f"/papers/{uuid4()}/reviews")
    assert refused(answer, 404) == "There is no such paper."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"title": "   "}, "title must not be empty"),
        ({"title": "x" * 201}, "Expected `str` of length <= 200"),
        ({"abstract": "a\0b"}, "abstract must not contain NUL characters"),
        ({"author_email": "ada"}, "author_email must be an email address such as ada@example.org"),
        ({"author_name": 3}, "Expected `str`, got `int`"),
        ({"status": "accepted"}, "Object contains unknown field `status`"),
    ],
)
async def test_a_paper_that_is_not_valid_is_refused_in_words(
    service: Service, fields: dict[str, object], message: str
) -> None:
    answer = await service.http.post("/papers", json=PAPER | fields)
    assert answer.status_code == 400
    assert [problem["message"] for problem in answer.json()["extra"]] == [message]


async def test_pages_hold_every_paper_once_the_newest_first(service: Service) -> None:
    for number in range(3):
        await service.submit(title=f"Paged {number}")
    answer = (await service.http.get("/papers", params={"page_size": 2})).json()
    assert (answer["limit"], answer["offset"], len(answer["items"])) == (2, 0, 2)
    pages = [
        title
        for page in range(1, -(-answer["total"] // 2) + 1)
        for title in await titles(service, page_size=2, page=page)
    ]
    assert pages[:3] == ["Paged 2", "Paged 1", "Paged 0"]
    assert len(pages) == len(set(pages)) == answer["total"]
    assert await titles(service, page=10_000) == []


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=10001", "page_size=101", "page_size=x", "status=lost", "search=%00"],
)
async def test_a_query_out_of_range_is_400(service: Service, query: str) -> None:
    answer = await service.http.get(f"/papers?{query}")
    assert answer.status_code == 400
    assert answer.json()["extra"][0]["key"] == query.split("=", maxsplit=1)[0]


async def test_search_looks_into_title_abstract_and_author(service: Service) -> None:
    await service.submit(title="Zebra", author_name="Unrelated")
    await service.submit(abstract="All about the ZEBRA.", title="In the abstract")
    await service.submit(author_name="Zoe Zebrafish", title="By the author")
    assert await titles(service, search=" zebra ") == ["By the author", "In the abstract", "Zebra"]
    assert await titles(service, search="100%") == []


async def test_the_search_text_is_no_pattern(service: Service) -> None:
    await service.submit(title="100% certain")
    assert await titles(service, search="0% c") == ["100% certain"]
    assert await titles(service, search="1%n") == []
    assert await titles(service, search="'; DROP TABLE paper; --") == []


async def test_the_status_filters(service: Service) -> None:
    paper = await service.reviewed_paper(5, 5)
    assert "On tests" in await titles(service, status="under_review")
    assert "On tests" not in await titles(service, status="accepted")
    await service.decide(paper)
    assert await titles(service, status="accepted", search="on tests") == ["On tests"]


async def test_a_paper_with_enough_reviews_is_decided(service: Service) -> None:
    paper = await service.reviewed_paper(2, 5)
    answer = await service.decide(paper, "rejected")
    assert answer.status_code == 200
    assert answer.json()["status"] == "rejected"
    stored = (await service.http.get(f"/papers/{paper}")).json()
    assert (stored["status"], stored["average_score"]) == ("rejected", 3.5)


async def test_a_decision_needs_two_reviews(service: Service) -> None:
    paper = await service.reviewed_paper(5)
    text = refused(await service.decide(paper), 409)
    assert text == "A decision needs 2 reviews; this paper has 1."
    assert (await service.http.get(f"/papers/{paper}")).json()["status"] == "under_review"


async def test_an_assignment_is_no_review(service: Service) -> None:
    paper = await service.reviewed_paper(5)
    await service.assign(paper, await service.join("Waiting"))
    assert refused(await service.decide(paper), 409).endswith("this paper has 1.")


async def test_a_paper_is_decided_once(service: Service) -> None:
    paper = await service.reviewed_paper(4, 4)
    await service.decide(paper)
    text = refused(await service.decide(paper, "rejected"), 409)
    assert text == "This paper is accepted: nothing can be added or changed."


async def test_only_a_verdict_decides(service: Service) -> None:
    paper = await service.reviewed_paper(4, 4)
    answer = await service.decide(paper, "submitted")
    assert answer.status_code == 400
    assert answer.json()["extra"][0]["message"] == "Invalid enum value 'submitted'"
