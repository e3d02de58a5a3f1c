"""Reviewers: join, list."""

from uuid import UUID

from advanced_alchemy.filters import LimitOffset, OrderBy
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import OffsetPagination, SQLAlchemyAsyncRepositoryService
from litestar import Controller, get, post
from litestar.params import JSONBody
from msgspec import Struct

from example_app.models import Reviewer
from example_app.papers import Conflict, PageNumber, PageSize
from example_app.text import Email, Line, tidy, tidy_email
from reviewpoint_db.litestar import ReadSessionDep, SessionDep


class ReviewerInput(Struct, forbid_unknown_fields=True):
    name: Line
    email: Email

    def __post_init__(self) -> None:
        self.name = tidy(self.name, "name")
        self.email = tidy_email(self.email, "email")


class ReviewerOutput(Struct):
    id: UUID
    name: str
    email: str


TAKEN = "There is a reviewer with this email already."


class ReviewerService(SQLAlchemyAsyncRepositoryService[Reviewer]):
    class Repository(SQLAlchemyAsyncRepository[Reviewer]):
        model_type = Reviewer
        error_messages = {
            "not_found": "There is no such reviewer.",
            # advanced-alchemy reads the driver's text, and knows SQLite's as the first of these
            # and asyncpg's as the second. The email is this table's only constraint.
            "duplicate_key": TAKEN,
            "integrity": TAKEN,
        }

    repository_type = Repository


class ReviewerController(Controller):
    path = "/reviewers"
    tags = ["reviewers"]

    @get(summary="List reviewers")
    async def list_reviewers(
        self,
        db_read_session: ReadSessionDep,
        page: PageNumber = 1,
        page_size: PageSize = 20,
    ) -> OffsetPagination[ReviewerOutput]:
        reviewers = ReviewerService(db_read_session)
        window = LimitOffset(page_size, page_size * (page - 1))
        found, total = await reviewers.get_many_and_count(window, OrderBy("name"), OrderBy("id"))
        return reviewers.to_schema(found, total, [window], schema_type=ReviewerOutput)

    @post(summary="Join as a reviewer", raises=[Conflict])
    async def join(self, db_session: SessionDep, data: JSONBody[ReviewerInput]) -> ReviewerOutput:
        reviewers = ReviewerService(db_session)
        return reviewers.to_schema(await reviewers.create(data), schema_type=ReviewerOutput)
