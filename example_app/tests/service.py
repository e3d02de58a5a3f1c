"""The running example, with a verb for each thing that a person does."""

from dataclasses import dataclass
from typing import Any

from httpx import AsyncClient, Response

PAPER = {
    "title": "On tests",
    "abstract": "They act through HTTP.",
    "author_name": "Ada Author",
    "author_email": "ada@example.org",
}


@dataclass
class Service:
    http: AsyncClient

    async def submit(self, **fields: str) -> dict[str, Any]:
        return created(await self.http.post("/papers", json=PAPER | fields))

    async def join(self, name: str) -> str:
        email = f"{name.lower()}@example.org"
        answer = await self.http.post("/reviewers", json={"name": name, "email": email})
        return str(created(answer)["id"])

    async def assign(self, paper: str, reviewer: str) -> Response:
        return await self.http.post(f"/papers/{paper}/reviewers", json={"reviewer_id": reviewer})

    async def review(self, paper: str, reviewer: str, score: int = 4) -> Response:
        return await self.http.post(
            f"/papers/{paper}/reviews",
            json={"reviewer_id": reviewer, "score": score, "comment": "Read it."},
        )

    async def decide(self, paper: str, verdict: str = "accepted") -> Response:
        return await self.http.post(f"/papers/{paper}/decision", json={"verdict": verdict})

    async def reviewed_paper(self, *scores: int) -> str:
        """Submit a paper and have it reviewed, by one new reviewer for each score."""
        paper = str((await self.submit())["id"])
        for number, score in enumerate(scores):
            reviewer = await self.join(f"Reviewer{number}")
            created(await self.assign(paper, reviewer))
            created(await self.review(paper, reviewer, score))
        return paper


def created(answer: Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body
