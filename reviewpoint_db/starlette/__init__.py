"""A database for a Starlette application: one call, and `get_session(request)` in its handlers.

    async def index(request: Request) -> JSONResponse:
        session = get_session(request)
        return JSONResponse({"answer": await session.scalar(text("select 42"))})

    app = Starlette(routes=[Route("/", index)])
    setup_database(app)

`setup_database` (`setup.py`) makes the routes and adds the database to the application's
`Installation`, which changes its middleware stack and its lifespan.

From outside to inside a request meets: the unit of work, which releases its session; the routes of
this package; the application's middleware; COMMIT, at the start of the response; the application.
"""

from __future__ import annotations

from reviewpoint_db.starlette.errors import answer_database_error
from reviewpoint_db.starlette.setup import (
    Guard,
    get_read_session,
    get_session,
    setup_database,
)

__all__ = [
    "Guard",
    "answer_database_error",
    "get_read_session",
    "get_session",
    "setup_database",
]
