"""The database of a Litestar application: `Litestar(..., plugins=[ReviewPointDBPlugin()])`."""

from reviewpoint_db.litestar.alchemy import SQLAlchemyAsyncConfig
from reviewpoint_db.litestar.injection import DatabaseDep, ReadSessionDep, SessionDep
from reviewpoint_db.litestar.middleware import get_read_session, get_session
from reviewpoint_db.litestar.plugin import ReviewPointDBPlugin

__all__ = (
    "DatabaseDep",
    "ReadSessionDep",
    "ReviewPointDBPlugin",
    "SQLAlchemyAsyncConfig",
    "SessionDep",
    "get_read_session",
    "get_session",
)
