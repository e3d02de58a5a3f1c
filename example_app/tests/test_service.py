"""The service through HTTP. Each test begins with the seed data alone."""

from litestar import Litestar
from litestar.testing import TestClient
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from example_app.models import Paper
from reviewpoint_db.testing import assert_no_leak, assert_statements

Client = TestClient[Litestar]
PAPER = {
    "title": "On tests",
    "abstract": "They act through HTTP.",
    "author_name": "Ada Author",
    "author_email": "ada@example.org",
}


async def count(session: AsyncSession, **fields: str) -> int:
    found = await session.scalar(select(func.count()).select_from(Paper).filter_by(**fields))
    return found or 0


async def test_a_paper_is_stored(client: Client, db_session: AsyncSession) -> None:
    assert client.post("/papers", json=PAPER).status_code == 201
    assert await count(db_session, title="On tests") == 1


async def test_nothing_is_left_of_it(client: Client, db_session: AsyncSession) -> None:
    assert client.get("/papers").status_code == 200
    assert await count(db_session, title="On tests") == 0
    assert await count(db_session) > 0, "the seed data of the application's start"


async def test_what_is_refused_stores_nothing(client: Client, db_session: AsyncSession) -> None:
    before = await count(db_session)
    assert client.post("/papers", json={**PAPER, "title": ""}).status_code == 400
    assert await count(db_session) == before


def test_a_reviewer_joins_once(client: Client) -> None:
    reviewer = {"name": "Rita", "email": "rita@example.org"}
    assert client.post("/reviewers", json=reviewer).status_code == 201
    assert client.post("/reviewers", json=reviewer).status_code == 409


def test_a_paper_goes_its_way(client: Client) -> None:
    paper = client.post("/papers", json=PAPER).json()["id"]
    for name in ("Rita", "Rolf"):
        person = {"name": name, "email": f"{name.lower()}@example.org"}
        named = {"reviewer_id": client.post("/reviewers", json=person).json()["id"]}
        assert client.post(f"/papers/{paper}/reviewers", json=named).status_code == 201
        review = {**named, "score": 5, "comment": "Read it."}
        assert client.post(f"/papers/{paper}/reviews", json=review).status_code == 201
    decided = client.post(f"/papers/{paper}/decision", json={"verdict": "accepted"})
    assert decided.json()["status"] == "accepted"


def test_a_page_of_papers_takes_few_statements_and_returns_its_connection(client: Client) -> None:
    with assert_no_leak(client.app.state.databases["default"]), assert_statements(max=3):
        assert client.get("/papers?pageSize=2").status_code == 200
