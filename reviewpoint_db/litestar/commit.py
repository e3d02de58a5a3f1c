"""Reads advanced-alchemy's `before_send_handler`: who commits, and at which status."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from advanced_alchemy.extensions.litestar import (
    async_autocommit_handler_maker,
    async_default_handler_maker,
)

if TYPE_CHECKING:
    from reviewpoint_db.transaction import CommitMode

__all__ = ("CommitRule", "commit_rule")


def _success(status: int) -> bool:
    return status < 400


class CommitRule(NamedTuple):
    """Who commits, and when.

    Args:
        mode: "autocommit" where the response's status decides.
        commits: Says of a status whether it commits.
        hook: A `before_send` hook of the application's own, which is called as it is.
    """

    mode: CommitMode
    commits: Callable[[int], bool] = _success
    hook: Any = None


def commit_rule(handler: Any) -> CommitRule:
    """Understand a `before_send_handler`.

    Args:
        handler: None, "autocommit", "autocommit_include_redirects", one that was made by
            advanced-alchemy's makers, or any other hook.
    """
    if handler is None or _is_made_by(handler, async_default_handler_maker):
        return CommitRule("manual")
    if handler == "autocommit":
        return CommitRule("autocommit", range(200, 300).__contains__)
    if handler == "autocommit_include_redirects":
        return CommitRule("autocommit", range(200, 400).__contains__)
    if _is_made_by(handler, async_autocommit_handler_maker):
        # Called as it is, it would swallow a failed COMMIT and let the 2xx go out.
        return CommitRule("autocommit", _statuses_of(handler))
    return CommitRule("manual", hook=handler)


def _is_made_by(handler: Any, maker: Callable[..., Any]) -> bool:
    name = f"{maker.__qualname__}.<locals>."
    return getattr(handler, "__module__", None) == maker.__module__ and getattr(
        handler, "__qualname__", ""
    ).startswith(name)


def _statuses_of(handler: Callable[..., Any]) -> Callable[[int], bool]:
    settings = inspect.getclosurevars(handler).nonlocals
    commit: set[int] = set(settings["commit_range"]) | settings["extra_commit_statuses"]
    rollback = settings["extra_rollback_statuses"]
    commits = frozenset(commit - rollback)
    return commits.__contains__
