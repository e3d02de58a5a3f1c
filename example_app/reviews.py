"""Reviews: assign a reviewer to a paper, review it, read what was said."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import SQLAlchemyAsyncRepositoryService
from litestar import Controller, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from example_app.models import Review
from example_app.papers import Conflict, PaperService
from example_app.reviewers import ReviewerOutput, ReviewerService
from example_app.text import Prose, tidy
from reviewpoint_db.litestar import ReadSessionDep, SessionDep


class Assignment(Struct, forbid_unknown_fields=True):
    reviewer_id: UUID


class ReviewInput(Struct, forbid_unknown_fields=True):
    reviewer_id: UUID
    score: Annotated[int, Meta(ge=1, le=5, description="1 reject … 5 accept")]
    comment: Prose

    def __post_init__(self) -> None:
        self.comment = tidy(self.comment, "comment")


class ReviewOutput(Struct):
    id: UUID
    paper_id: UUID
    reviewer: ReviewerOutput
    score: int | None
    comment: str | None
    created_at: datetime
    reviewed_at: datetime | None


class ReviewService(SQLAlchemyAsyncRepositoryService[Review]):
    class Repository(SQLAlchemyAsyncRepository[Review]):
        model_type = Review

    repository_type = Repository

    async def assign(self, paper_id: UUID, reviewer_id: UUID) -> Review:
        paper = await PaperService(self.repository.session).open_paper(paper_id)
        reviewer = await ReviewerService(self.repository.session).get_one(id=reviewer_id)
        if reviewer.email == paper.author_email:
            raise Conflict(f"{reviewer.name} wrote this paper, and cannot review it.")
        if any(review.reviewer_id == reviewer_id for review in paper.reviews):
            raise Conflict(f"{reviewer.name} is assigned to this paper already.")
        paper.status = "under_review"
        return await self.create(Review(paper_id=paper.id, reviewer=reviewer))

    async def write(self, paper_id: UUID, data: ReviewInput) -> Review:
        paper = await PaperService(self.repository.session).open_paper(paper_id)
        reviewer = await ReviewerService(self.repository.session).get_one(id=data.reviewer_id)
        review = next((r for r in paper.reviews if r.reviewer_id == reviewer.id), None)
        if review is None:
            raise Conflict(f"{reviewer.name} is not assigned to this paper.")
        if review.score is not None:
            raise Conflict(f"{reviewer.name} has reviewed this paper already.")
        review.score, review.comment = data.score, data.comment
        review.reviewed_at = datetime.now(UTC)
        return await self.update(review)


class ReviewController(Controller):
    path = "/papers/{paper_id:uuid}"
    tags = ["reviews"]

    @post(
        "/reviewers", summary="Assign a reviewer to a paper", raises=[NotFoundException, Conflict]
    )
    async def assign(
        self,
        db_session: SessionDep,
        paper_id: FromPath[UUID],
        data: JSONBody[Assignment],
    ) -> ReviewOutput:
        reviews = ReviewService(db_session)
        review = await reviews.assign(paper_id, data.reviewer_id)
        return reviews.to_schema(review, schema_type=ReviewOutput)

    @get("/reviews", summary="Read the reviews of a paper", raises=[NotFoundException])
    async def list_reviews(
        self, db_read_session: ReadSessionDep, paper_id: FromPath[UUID]
    ) -> list[ReviewOutput]:
        paper = await PaperService(db_read_session).get_one(id=paper_id)
        reviews = ReviewService(db_read_session)
        return [reviews.to_schema(review, schema_type=ReviewOutput) for review in paper.reviews]

    @post("/reviews", summary="Review a paper", raises=[NotFoundException, Conflict])
    async def write(
        self,
        db_session: SessionDep,
        paper_id: FromPath[UUID],
        data: JSONBody[ReviewInput],
    ) -> ReviewOutput:
        reviews = ReviewService(db_session)
        review = await reviews.write(paper_id, data)
        return reviews.to_schema(review, schema_type=ReviewOutput)
