"""freeze_gc: what the start-up made is kept out of the collector's sight while an application runs."""

from __future__ import annotations

import gc
import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from litestar import Litestar
from starlette.applications import Starlette

from reviewpoint_db import fastapi, starlette
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.freezing import frozen
from reviewpoint_db.litestar import ReviewPointDBPlugin
from tests.support.asgi import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Make = Callable[[DatabaseConfig, bool], Any]

#: How many objects were frozen when an application's own start was over, and before that.
SEEN: list[int] = []


@asynccontextmanager
async def lifespan(_: Any) -> AsyncIterator[None]:
    SEEN.append(gc.get_freeze_count())
    yield


def litestar_app(config: DatabaseConfig, freeze_gc: bool) -> Litestar:
    plugin = ReviewPointDBPlugin(config, freeze_gc=freeze_gc)
    return Litestar(plugins=[plugin], lifespan=[lifespan])


def starlette_app(config: DatabaseConfig, freeze_gc: bool) -> Starlette:
    app = Starlette(lifespan=lifespan)
    starlette.setup_database(app, config, freeze_gc=freeze_gc)
    return app


def fastapi_app(config: DatabaseConfig, freeze_gc: bool) -> FastAPI:
    app = FastAPI(lifespan=lifespan)
    fastapi.setup_database(app, config, freeze_gc=freeze_gc)
    return app


adapters = pytest.mark.parametrize("make", [litestar_app, starlette_app, fastapi_app])


@pytest.fixture
def config(sqlite_url: str) -> DatabaseConfig:
    with warnings.catch_warnings(action="ignore"):
        gc.collect()  # what other tests left has warnings of its own
    SEEN.clear()
    return DatabaseConfig(url=sqlite_url)


@adapters
async def test_the_collector_is_frozen_after_the_applications_own_start_and_until_the_stop(
    make: Make, config: DatabaseConfig
) -> None:
    app = make(config, True)
    for _ in range(2):
        async with running(app):
            assert gc.get_freeze_count() > 10_000
        assert gc.get_freeze_count() == 0
    assert SEEN == [0, 0]


@adapters
async def test_by_default_the_collector_is_left_alone(make: Make, config: DatabaseConfig) -> None:
    async with running(make(config, False)):
        assert gc.get_freeze_count() == 0


async def test_what_the_start_up_left_behind_is_collected_first() -> None:
    class Node:
        def __init__(self) -> None:
            self.itself = self

    node = Node()
    gc.disable()
    try:
        del node
        with frozen():
            pass
        assert not any(isinstance(one, Node) for one in gc.get_objects())
    finally:
        gc.enable()


async def test_the_last_of_several_applications_thaws(config: DatabaseConfig) -> None:
    one, two = litestar_app(config, True), starlette_app(config, True)
    async with running(one):
        async with running(two):
            pass
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


async def test_a_start_that_fails_leaves_nothing_frozen(config: DatabaseConfig) -> None:
    def fail() -> None:
        raise LookupError("the application's own")

    app = litestar_app(config, True)
    app.on_startup.append(fail)
    with pytest.raises(Exception, match="the application's own"):
        async with running(app):
            raise AssertionError("it started")
    assert gc.get_freeze_count() == 0
