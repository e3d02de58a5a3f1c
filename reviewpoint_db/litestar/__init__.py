"""The database of a Litestar application: `Litestar(..., plugins=[ReviewPointDBPlugin()])`."""

from reviewpoint_db.litestar.alchemy import SQLAlchemyAsyncConfig
from reviewpoint_db.litestar.middleware import get_read_session, get_session
from reviewpoint_db.litestar.plugin import ReviewPointDBPlugin

__all__ = ("ReviewPointDBPlugin", "SQLAlchemyAsyncConfig", "get_read_session", "get_session")
