"""Gives our session maker the settings and listeners of advanced-alchemy's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.orm import sessionmaker

if TYPE_CHECKING:
    from advanced_alchemy.config import SQLAlchemyAsyncConfig
    from sqlalchemy.ext.asyncio import async_sessionmaker

__all__ = ("configure_sessions",)

# The class is ours, made on top of `class_`, which the database knows already.
_OURS = ("class_", "sync_session_class")


def configure_sessions(maker: async_sessionmaker[Any], config: SQLAlchemyAsyncConfig) -> None:
    """Apply `session_config`, and listen for what advanced-alchemy's models and caches need.

    Args:
        maker: Ours; changed in place.
        config: advanced-alchemy's configuration.
    """
    settings = config.session_config_dict
    maker.configure(**{name: value for name, value in settings.items() if name not in _OURS})
    # advanced-alchemy keeps its listeners private, and hands them to nobody but its own maker; a
    # test compares the two, so that a new one is not missed.
    from advanced_alchemy._listeners import (
        AsyncCacheListener,
        AsyncFileObjectListener,
        touch_updated_timestamp,
    )

    # A maker listens for itself: the class behind it may serve others.
    sync_maker = sessionmaker(class_=maker.class_.sync_session_class)
    listeners: list[tuple[str, Any]] = [
        (name, AsyncCacheListener) for name in ("after_commit", "after_rollback")
    ]
    if config.enable_file_object_listener:
        listeners += [
            (name, AsyncFileObjectListener)
            for name in ("before_flush", "after_commit", "after_rollback")
        ]
    for name, listener in listeners:
        event.listen(sync_maker, name, getattr(listener, name))
    if config.enable_touch_updated_timestamp_listener:
        event.listen(sync_maker, "before_flush", touch_updated_timestamp)
    maker.configure(sync_session_class=sync_maker)
