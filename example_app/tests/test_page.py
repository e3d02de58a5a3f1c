"""The page for people."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from example_app.tests.service import Service


class Page(HTMLParser):
    """What a test asks about a page: its links, forms, fields and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: dict[str, list[str]] = {}
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        have = dict(attrs)
        self.links += [value for key in ("href", "src") if (value := have.get(key))]
        if tag == "form":
            self._fields = self.forms.setdefault(have["action"] or "", [])
        elif tag in {"input", "select", "textarea", "button"} and have.get("name"):
            self._fields.append(have["name"] or "")

    def handle_data(self, data: str) -> None:
        self.text += data

    def has(self, text: str) -> bool:
        return text in re.sub(r"\s+", " ", self.text)


async def show(service: Service, query: str = "") -> Page:
    answer = await service.http.get(f"/{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


async def test_the_page_shows_the_seeded_papers(service: Service) -> None:
    page = await show(service)
    assert page.has("A commit that the client can believe")
    assert page.has("4.5 of 5 · 2 reviews")
    assert page.has("Page 1 of 2")
    assert (await show(service, "?page=2")).has("The cost of a round trip")


async def test_all_that_the_page_loads_is_its_own(service: Service) -> None:
    page = await show(service)
    assert {"/schema", "/db/"} <= set(page.links)
    for link in ("/static/page.css", "/static/page.js", "/static/icon.svg", "/schema/openapi.json"):
        assert link in page.links
        assert (await service.http.get(link)).status_code == 200
    assert all(link.startswith(("/", "#")) for link in page.links)


async def test_what_people_type_is_text(service: Service) -> None:
    await service.submit(title="<script>alert(1)</script>")
    answer = await service.http.get("/?search=<script>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
    assert "<script>alert" not in answer.text


async def test_the_page_searches_and_filters(service: Service) -> None:
    await service.submit(title="Needle & thread")
    page = await show(service, "?search=needle&status=submitted")
    assert page.has("Needle & thread")
    assert page.has("1 found for “needle”")
    assert (await show(service, "?search=needle&status=accepted")).has("There is no paper here.")


async def test_the_forms_are_those_of_the_api(service: Service) -> None:
    """Each form's action and fields are a route and a body that the API documents."""
    paper = (await service.submit(title="Formal"))["id"]
    await service.assign(paper, await service.join("Rita"))
    forms = (await show(service, "?search=formal")).forms
    assert forms["/papers"] == ["title", "abstract", "author_name", "author_email"]
    assert forms["/reviewers"] == ["name", "email"]
    assert forms[f"/papers/{paper}/reviewers"] == ["reviewer_id"]
    assert forms[f"/papers/{paper}/reviews"] == ["reviewer_id", "score", "comment"]
    schema = (await service.http.get("/schema/openapi.json")).json()
    bodies = schema["components"]["schemas"]
    assert {"/papers", "/reviewers", "/papers/{paper_id}/reviews"} <= set(schema["paths"])
    assert [*bodies["PaperInput"]["properties"]] == forms["/papers"]


async def test_a_paper_offers_what_can_be_done_with_it(service: Service) -> None:
    paper = await service.reviewed_paper(4)
    decision = f"/papers/{paper}/decision"
    page = await show(service, "?search=on tests")
    assert page.has("Needs 2 reviews, has 1.")
    assert page.forms[decision] == []

    reviewer = await service.join("Rita")
    await service.assign(paper, reviewer)
    await service.review(paper, reviewer)
    assert (await show(service, "?search=on tests")).forms[decision] == ["verdict", "verdict"]

    await service.decide(paper)
    page = await show(service, "?search=on tests")
    assert not [action for action in page.forms if paper in action]


async def test_authors_are_not_offered_their_own_papers(service: Service) -> None:
    await service.join("Ada")
    await service.submit(title="Unrelated", author_email="other@example.org")
    await service.submit(title="Adas own")
    option = re.compile(r"<option[^>]*>Ada</option>")
    assert option.search((await service.http.get("/?search=unrelated")).text)
    assert not option.search((await service.http.get("/?search=adas own")).text)


async def test_the_page_is_no_part_of_the_api(service: Service) -> None:
    schema = (await service.http.get("/schema/openapi.json")).json()
    assert not [
        path for path in schema["paths"] if path == "/" or path.startswith(("/static", "/db"))
    ]
    assert schema["info"]["title"] == "Peer review"
    decision = schema["paths"]["/papers/{paper_id}/decision"]["post"]["responses"]
    assert {"200", "400", "404", "409"} <= set(decision)
