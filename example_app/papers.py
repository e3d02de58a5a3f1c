"""Papers: submit, list, search, decide."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from advanced_alchemy.filters import LimitOffset, OrderBy
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import OffsetPagination, SQLAlchemyAsyncRepositoryService
from litestar import Controller, get, post
from litestar.exceptions import ClientException, NotFoundException
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Struct
from sqlalchemy import ColumnElement, func, or_, select

from example_app.models import Paper, Status, Verdict
from example_app.text import Email, Line, Prose, Title, tidy, tidy_email
from reviewpoint_db.litestar import ReadSessionDep, SessionDep

REVIEWS_NEEDED = 2

PageNumber = Annotated[int, QueryParameter(ge=1, le=10_000)]
PageSize = Annotated[int, QueryParameter(ge=1, le=100)]
Search = Annotated[
    str,
    QueryParameter(max_length=100, pattern=r"^[^\0]*$", description="In title, abstract, author"),
]


class Conflict(ClientException):
    """The request is fine, but not for a paper in this state."""

    status_code = 409


class PaperInput(Struct, forbid_unknown_fields=True):
    title: Title
    abstract: Prose
    author_name: Line
    author_email: Email

    def __post_init__(self) -> None:
        self.title = tidy(self.title, "title")
        self.abstract = tidy(self.abstract, "abstract")
        self.author_name = tidy(self.author_name, "author_name")
        self.author_email = tidy_email(self.author_email, "author_email")


class Decision(Struct, forbid_unknown_fields=True):
    verdict: Verdict


class PaperOutput(Struct):
    id: UUID
    title: str
    abstract: str
    author_name: str
    author_email: str
    status: Status
    scores: list[int]
    average_score: float | None
    created_at: datetime
    updated_at: datetime


class PaperService(SQLAlchemyAsyncRepositoryService[Paper]):
    class Repository(SQLAlchemyAsyncRepository[Paper]):
        model_type = Paper
        error_messages = {"not_found": "There is no such paper."}

    repository_type = Repository

    async def page(
        self, number: int, size: int, search: str, status: Status | None
    ) -> tuple[Sequence[Paper], int, LimitOffset]:
        """One page of papers, the newest first, and how many there are in all."""
        window = LimitOffset(size, size * (number - 1))
        wanted: list[ColumnElement[bool]] = []
        if text := search.strip():
            columns = (Paper.title, Paper.abstract, Paper.author_name)
            wanted.append(or_(*(column.icontains(text, autoescape=True) for column in columns)))
        if status:
            wanted.append(Paper.status == status)
        newest = OrderBy("created_at", "desc")
        papers, total = await self.get_many_and_count(*wanted, newest, OrderBy("id"), window)
        return papers, total, window

    async def tally(self) -> dict[Status, int]:
        """How many papers there are of each status."""
        counted = await self.repository.session.execute(
            select(Paper.status, func.count().label("total")).group_by(Paper.status)
        )
        return {row.status: row.total for row in counted}

    async def open_paper(self, paper_id: UUID) -> Paper:
        """A paper that waits for its decision, locked until COMMIT.

        Without the lock, a review and a decision at the same time would both find it open.
        """
        paper = await self.get_one(id=paper_id, with_for_update=True)
        if paper.decided:
            raise Conflict(f"This paper is {paper.status}: nothing can be added or changed.")
        return paper

    async def decide(self, paper_id: UUID, verdict: Verdict) -> Paper:
        paper = await self.open_paper(paper_id)
        if (have := len(paper.scores)) < REVIEWS_NEEDED:
            raise Conflict(f"A decision needs {REVIEWS_NEEDED} reviews; this paper has {have}.")
        paper.status = verdict
        return await self.update(paper)


class PaperController(Controller):
    path = "/papers"
    tags = ["papers"]

    @get(summary="List and search papers")
    async def list_papers(
        self,
        db_read_session: ReadSessionDep,
        page: PageNumber = 1,
        page_size: PageSize = 20,
        search: Search = "",
        status: FromQuery[Status | None] = None,
    ) -> OffsetPagination[PaperOutput]:
        papers = PaperService(db_read_session)
        found, total, window = await papers.page(page, page_size, search, status)
        return papers.to_schema(found, total, [window], schema_type=PaperOutput)

    @post(summary="Submit a paper")
    async def submit(self, db_session: SessionDep, data: JSONBody[PaperInput]) -> PaperOutput:
        papers = PaperService(db_session)
        return papers.to_schema(await papers.create(data), schema_type=PaperOutput)

    @get("/{paper_id:uuid}", summary="Read one paper", raises=[NotFoundException])
    async def read(self, db_read_session: ReadSessionDep, paper_id: FromPath[UUID]) -> PaperOutput:
        papers = PaperService(db_read_session)
        return papers.to_schema(await papers.get_one(id=paper_id), schema_type=PaperOutput)

    @post(
        "/{paper_id:uuid}/decision",
        status_code=200,
        summary="Accept or reject a paper",
        raises=[NotFoundException, Conflict],
    )
    async def decide(
        self,
        db_session: SessionDep,
        paper_id: FromPath[UUID],
        data: JSONBody[Decision],
    ) -> PaperOutput:
        papers = PaperService(db_session)
        paper = await papers.decide(paper_id, data.verdict)
        return papers.to_schema(paper, schema_type=PaperOutput)
