"""advanced-alchemy's `before_send_handler` under our plugin: which statuses are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from advanced_alchemy.extensions.litestar import (
    async_autocommit_before_send_handler,
    async_autocommit_handler_maker,
)
from litestar import Litestar

from reviewpoint_db.litestar import ReviewPointDBPlugin, SQLAlchemyAsyncConfig
from reviewpoint_db.litestar.commit import commit_rule
from tests.support.alchemy import Swap, note, seen_by
from tests.support.asgi import client, running
from tests.support.notes import held, metadata, stored

if TYPE_CHECKING:
    from litestar.types import Message, Scope

pytestmark = [
    # advanced-alchemy 1.9 warns of what it calls by itself.
    pytest.mark.filterwarnings("ignore:.*set_async_context"),
    pytest.mark.filterwarnings("ignore:.*reset_async_context"),
]


class TestCommitModes:
    @pytest.mark.parametrize(
        ("handler", "kept"),
        [
            (None, []),
            ("autocommit", [200, 201]),
            ("autocommit_include_redirects", [200, 201, 303]),
            (async_autocommit_handler_maker(commit_on_redirect=True), [200, 201, 303]),
            (
                async_autocommit_handler_maker(
                    extra_commit_statuses={418}, extra_rollback_statuses={201}
                ),
                [200, 418],
            ),
        ],
    )
    async def test_which_statuses_are_stored(
        self, swap: Swap, url: str, handler: Any, kept: list[int]
    ) -> None:
        # Their makers name the scope's key at the time they are made.
        alchemy = swap.config(
            connection_string=url, before_send_handler=handler, metadata=metadata, create_all=True
        )
        if callable(handler):
            alchemy.session_scope_key = "_sqlalchemy_db_session"
        app = Litestar([note], plugins=[swap.plugin(alchemy)])
        async with running(app), client(app) as http:
            for status in (200, 201, 303, 400, 418, 500):
                assert (
                    await http.post(f"/note?text={status}&status={status}")
                ).status_code == status
            assert await seen_by(app, alchemy) == [str(status) for status in kept]

    async def test_a_hook_of_the_applications_own_is_called_as_it_is(
        self, swap: Swap, url: str
    ) -> None:
        calls: list[tuple[str, bool]] = []

        async def hook(message: Message, scope: Scope) -> None:
            session = scope["_aa_connection_state"].get(alchemy.session_scope_key)  # type: ignore[typeddict-item]
            calls.append((message["type"], session is not None))
            if message["type"] == "http.response.start":
                await session.commit()
                await session.close()

        alchemy = swap.config(
            connection_string=url, before_send_handler=hook, metadata=metadata, create_all=True
        )
        app = Litestar([note], plugins=[swap.plugin(alchemy)])
        async with running(app), client(app) as http:
            await http.post("/note?text=a&status=500")
            assert calls == [("http.response.start", True), ("http.response.body", True)]
            assert await seen_by(app, alchemy) == ["a"]

    @pytest.mark.parametrize(
        "handler",
        ["autocommit", async_autocommit_handler_maker(), async_autocommit_before_send_handler],
    )
    async def test_a_failed_commit_is_told(self, url: str, handler: Any) -> None:
        """The one thing that is different from theirs, on purpose: there it is a silent 201."""
        alchemy = SQLAlchemyAsyncConfig(
            connection_string=url, before_send_handler=handler, metadata=metadata, create_all=True
        )
        app = Litestar([note], plugins=[ReviewPointDBPlugin(alchemy)])
        async with running(app), client(app) as http:
            assert (await http.post("/note?text=orphan&status=201")).status_code == 409
            assert await stored(alchemy.database) == []
            assert held(alchemy.database) == 0

    def test_what_their_makers_made_is_understood(self) -> None:
        """Their makers leave the statuses in the closure: this fails when they stop doing so."""
        rule = commit_rule(async_autocommit_handler_maker(extra_commit_statuses={418}))
        assert [rule.commits(status) for status in (200, 299, 300, 418)] == [
            True,
            True,
            False,
            True,
        ]
        assert (rule.mode, rule.hook) == ("autocommit", None)

    def test_a_handler_set_later_counts(self, url: str) -> None:
        alchemy = SQLAlchemyAsyncConfig(connection_string=url)
        alchemy.before_send_handler = "autocommit"
        assert alchemy.serve().mode == "autocommit"
        assert alchemy.serve().mode == "autocommit"
