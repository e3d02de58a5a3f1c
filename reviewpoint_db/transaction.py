"""UnitOfWork: one request's session, what becomes of its changes, and its certain release.

This is where a request's COMMIT happens (`finish`) and where its connection goes back (`release`).
No framework is known here: `commit_middleware.py` calls the first, `asgi.py` the second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from loguru import logger
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import greenlet_spawn

from reviewpoint_db.context import current_origin
from reviewpoint_db.errors import SessionClosedError
from reviewpoint_db.redaction import safe_error
from reviewpoint_db.session import awaits_commit
from reviewpoint_db.session_state import state_of
from reviewpoint_db.settings import refuse

if TYPE_CHECKING:
    from reviewpoint_db.activity import Activity
    from reviewpoint_db.asgi_types import Scope
    from reviewpoint_db.database import Database
    from reviewpoint_db.holder import Work

__all__ = [
    "UNITS",
    "CommitMode",
    "SessionBlock",
    "Terms",
    "UnitOfWork",
    "checked_commit",
    "end_session",
]

CommitMode = Literal["manual", "autocommit"]
_NO_SCOPE: Final[Scope] = {}
#: Where a scope has its units of work, by the names of their databases.
UNITS: Final = "reviewpoint_db"


def checked_commit(commit: object) -> CommitMode:
    """Return who commits, as an application said it.

    Raises:
        ConfigurationError: It is neither; a typo would leave everything uncommitted.
    """
    if commit == "manual" or commit == "autocommit":  # noqa: PLR1714 - so that the type is known
        return commit
    raise refuse("commit", repr(commit), "unknown", 'use one of "manual", "autocommit"')


class Terms(NamedTuple):
    """What all units of work of one application have in common.

    Args:
        database: Whose sessions these are.
        autocommit: Whether a success commits by itself.
        origin: Names the handler of a scope, for log lines and the list of holders.
        open_session: Opens the session of a scope in the database's place.
    """

    database: Database
    autocommit: bool = False
    origin: Callable[[Scope], str] | None = None
    open_session: Callable[[Scope], AsyncSession] | None = None


class UnitOfWork:
    """The sessions of one request.

    `commit="manual"`: the handler commits, all else is rolled back. `commit="autocommit"`: a
    successful response commits, everything else rolls back.

    Args:
        terms: Whose sessions these are, and who commits.
        scope: The request: an ASGI scope, or any mapping; its `headers` may bear an x-request-id.

    Example:
        >>> unit = database.unit_of_work(commit="autocommit")
        >>> unit.session.add(paper)
        >>> await unit.finish(succeeded=True)
        >>> await unit.release()
    """

    __slots__ = (
        "__weakref__",
        "_read_session",
        "_released",
        "_scope",
        "_session",
        "_succeeded",
        "_terms",
        "opened",
        "required_lsn",
        "status",
    )

    # One is made for every request, most of which have no use for it: no more than this.
    def __init__(self, terms: Terms, scope: Scope = _NO_SCOPE) -> None:
        self._terms = terms
        self._scope = scope
        self._session: AsyncSession | None = None
        self._read_session: AsyncSession | None = None
        self._released = False
        #: Whether anybody asked for a session.
        self.opened = False
        #: The WAL position of the primary that the read session must see.
        self.required_lsn: int | None = None
        self._succeeded: bool | None = None
        #: The HTTP status that the client got; None until it got one.
        self.status: int | None = None

    @property
    def activity(self) -> Activity:
        """What its database does."""
        return self._terms.database.activity

    @property
    def autocommit(self) -> bool:
        """Whether a success commits by itself."""
        return self._terms.autocommit

    @property
    def refused(self) -> bool:
        """Whether the client got an error, which a middleware may answer before the handler ends."""
        return self.status is not None and self.status >= 400

    @property
    def succeeded(self) -> bool | None:
        """Whether the response was a success; None until it is known."""
        if self.refused:
            return False
        if self._succeeded is None and not self._terms.autocommit and self.status is not None:
            return True
        return self._succeeded

    @succeeded.setter
    def succeeded(self, succeeded: bool) -> None:
        self._succeeded = succeeded

    @property
    def session(self) -> AsyncSession:
        """The request's session, opened on first access.

        Raises:
            SessionClosedError: After the release.
        """
        if self._session is None:
            self._refuse_after_release()
            self.opened = True
            opener = self._terms.open_session
            self._session = opener(self._scope) if opener else self._terms.database.open_session()
            if self._read_session is not None:
                state_of(self._read_session).writer = state_of(self._session)
        return self._session

    @property
    def read_session(self) -> AsyncSession:
        """The request's read session, opened on first access.

        Raises:
            SessionClosedError: After the release.
        """
        if self._read_session is None:
            self._refuse_after_release()
            self.opened = True
            self._read_session = self._terms.database.open_read_session()
            if self.required_lsn is not None:
                state_of(self._read_session).required_lsn = self.required_lsn
            if self._session is not None:
                state_of(self._read_session).writer = state_of(self._session)
        return self._read_session

    def _refuse_after_release(self) -> None:
        if self._released:
            raise SessionClosedError(
                f"The request {self.origin!r} is over and so are its sessions. For work that "
                "outlives it open one of its own: `async with database.session() as session`."
            )

    @property
    def dirty(self) -> bool:
        """Whether something waits for a COMMIT: a transaction, or functions that run after it."""
        return self._session is not None and awaits_commit(self._session)

    @property
    def stored(self) -> bool:
        """Whether a COMMIT stored something, or may have; known where there are replicas."""
        return self._session is not None and state_of(self._session).stored

    @property
    def unanswered(self) -> bool:
        """Whether a COMMIT of what it wrote was not answered: it may still be under way."""
        return self._session is not None and state_of(self._session).wrote == "unknown"

    @property
    def works(self) -> list[Work]:
        """What its sessions have done so far; nothing of those that took no connection."""
        sessions = (self._session, self._read_session)
        works = [state_of(session).work for session in sessions if session is not None]
        return [work for work in works if work is not None]

    @property
    def origin(self) -> str:
        """The handler, as the adapter names it."""
        # Asked each time: a middleware may use the session before the router knows the handler.
        name = self._terms.origin
        return (name(self._scope) if name else None) or "unknown"

    @property
    def request_id(self) -> str | None:
        """The request's x-request-id, when it has one."""
        for name, value in self._scope.get("headers") or ():
            if name == b"x-request-id":
                return str(value.decode("latin-1"))[:128]
        return None

    async def finish(self, *, succeeded: bool) -> None:
        """End the transaction as the response's status demands; in manual mode do nothing.

        Raises:
            SQLAlchemyError: What COMMIT raised; everything is rolled back then.
        """
        self.succeeded = succeeded
        session = self._session
        if session is None or not self._terms.autocommit or not awaits_commit(session):
            return
        if succeeded:
            await session.commit()
        else:
            await session.rollback()

    async def release(self) -> None:
        """Roll back what is left and return the connections; shielded, and safe to repeat."""
        if self._released:
            return
        self._released = True
        lost = self._session is not None and self._loses_changes(self._session)
        try:
            if self._session is not None:
                await self._terms.database.end(self._session)
        finally:  # cancelled in between, the other one still holds its connection
            if self._read_session is not None:
                await self._terms.database.end(self._read_session)
            self.close()
        if lost and self._session is not None:
            self._warn_of_lost_changes(self._session)

    def close(self) -> None:
        """End a unit of work that was never used, or whose sessions are released; no I/O."""
        self._released = True
        self._terms.database.activity.request_ended(self)
        # The scope has this unit, and each request would leave the two to the garbage collector.
        # Its own copy still names the request to whoever asks too late.
        scope = self._scope = {**self._scope}
        scope.pop(UNITS, None)

    def _loses_changes(self, session: AsyncSession) -> bool:
        """Whether a successful request leaves changes behind that nobody committed."""
        if not self.succeeded:
            return False
        state = state_of(session)
        if state.closed_over_changes or self._terms.autocommit:
            return state.closed_over_changes
        return bool(state.uncommitted or session.new or session.dirty or session.deleted)

    def _warn_of_lost_changes(self, session: AsyncSession) -> None:
        if state_of(session).closed_over_changes:
            how = "closed its session with changes uncommitted"
            fix = "Leave out `async with session` and `session.close()`: it is closed for you."
        else:
            how = "left changes uncommitted"
            fix = 'Call `await session.commit()`, or use commit="autocommit".'
        self._terms.database.activity.warn(
            "uncommitted_changes",
            f"{self.origin} answered with success but {how}; they were rolled back. {fix}",
            origin=self.origin,
        )


async def end_session(session: AsyncSession, terminate: Callable[[Connection], None]) -> None:
    """Roll back, close, and get every connection back, even those that SQLAlchemy lost sight of.

    May be called again after a cancellation, and then completes what was left.

    Args:
        session: Any AsyncSession; it cannot be used afterwards.
        terminate: Cuts a connection that could not be closed in order.
    """
    state = state_of(session)
    state.ended = True
    try:
        await session.close()  # rolls back what is open
    except Exception as error:  # noqa: BLE001 - whatever failed, the connections below go back
        logger.warning("A session could not be closed in order: {}", safe_error(error))
    for connection in state.connections:
        if not connection.closed:
            terminate(connection)
            await greenlet_spawn(_drop, connection)
    state.connections.clear()


def _drop(connection: Connection) -> None:
    connection.invalidate()
    connection.close()


class SessionBlock:
    """A session for a block, ended with it."""

    __slots__ = ("_before", "_database", "_open", "_origin", "_session")

    def __init__(
        self, database: Database, open_session: Callable[[], AsyncSession], origin: str | None
    ) -> None:
        self._database = database
        self._open = open_session
        self._origin = origin

    async def __aenter__(self) -> AsyncSession:
        self._before = current_origin.get()
        if self._origin is not None:
            current_origin.set(self._origin)
        self._session = self._open()
        return self._session

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._database.end(self._session)
        finally:
            if self._origin is not None:
                # Not by a token: a fixture's teardown runs in another context than its setup.
                current_origin.set(self._before)
