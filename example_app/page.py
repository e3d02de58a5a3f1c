"""The page for people. Its forms send JSON to the routes that every client uses."""

from pathlib import Path

from advanced_alchemy.filters import LimitOffset, OrderBy
from litestar import Controller, get
from litestar.params import FromQuery
from litestar.response import Template
from litestar.static_files import create_static_files_router

from example_app.models import Status
from example_app.papers import REVIEWS_NEEDED, PageNumber, PaperService, Search
from example_app.reviewers import ReviewerService
from reviewpoint_db.litestar import ReadSessionDep

HERE = Path(__file__).parent
PAGE_SIZE = 8

static_files = create_static_files_router(
    "/static", [HERE / "static"], name="static", include_in_schema=False
)


class PageController(Controller):
    include_in_schema = False

    @get("/")
    async def show(
        self,
        db_read_session: ReadSessionDep,
        page: PageNumber = 1,
        search: Search = "",
        status: FromQuery[Status | None] = None,
    ) -> Template:
        papers = PaperService(db_read_session)
        found, total, _ = await papers.page(page, PAGE_SIZE, search, status)
        return Template(
            "page.html",
            context={
                "papers": found,
                "total": total,
                "page": page,
                "pages": max(1, -(-total // PAGE_SIZE)),
                "search": search,
                "status": status,
                "tally": await papers.tally(),
                "reviewers": await ReviewerService(db_read_session).get_many(
                    LimitOffset(100, 0), OrderBy("name")
                ),
                "reviews_needed": REVIEWS_NEEDED,
            },
        )
