"""The database of a Litestar application: `Litestar(..., plugins=[ReviewPointDBPlugin()])`.

The plugin (`plugin.py`) makes a `Binding` of each database, and `setup.py` changes the application for
all of them at once: middlewares, dependencies (`injection.py`), routes, exception handlers
(`errors.py`), start and stop (`lifecycle.py`). `alchemy.py`, `commit.py` and `listeners.py` are for
advanced-alchemy: its configuration, its `before_send_handler` and its listeners.

From outside to inside a request meets: the unit of work, which releases its session; the
application's middleware; COMMIT, at the start of the response; the handler. The routes of this
package meet none of these, but for the middleware where they have guards.
"""

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
