"""Passwords that rotate: asked for at each connect, retried while they lag, bounded, never shown."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from reviewpoint_db.activity import Activity
from reviewpoint_db.config import DatabaseConfig, PoolConfig
from reviewpoint_db.engine import create_engine
from reviewpoint_db.errors import DatabaseUnavailableError
from reviewpoint_db.passwords import Password
from reviewpoint_db.settings import UrlOfFile
from reviewpoint_db.sqlstate import is_transient_connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from tests.support.postgres import PostgresServer


@asynccontextmanager
async def engine_of(config: DatabaseConfig) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(config, Activity("test"))
    try:
        yield engine
    finally:
        await engine.dispose()


def role(server: PostgresServer, password: str, *, verb: str = "CREATE") -> str:
    """Makes the role `ann`, or changes her password; her URL without one."""
    server.psql(f"{verb} ROLE ann LOGIN PASSWORD '{password}'")
    return f"postgresql://ann@{server.host}:{server.port}/postgres"


async def failure(password: Password) -> DatabaseUnavailableError:
    with pytest.raises(DatabaseUnavailableError) as caught:
        await password()
    return caught.value


async def one(engine: AsyncEngine) -> object:
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT 1"))


async def test_a_rotation_under_load_is_survived_without_an_error(
    own_postgres: PostgresServer,
) -> None:
    """The secret lags behind the server, as it does in life; no connection lives for long."""
    secret = ["first"]
    url = role(own_postgres, "first")
    pool = PoolConfig(size=4, max_overflow=2, timeout=10, max_lifetime=0.05)
    done, ending = 0, asyncio.Event()

    async def client(engine: AsyncEngine) -> None:
        nonlocal done
        while not ending.is_set():
            assert await one(engine) == 1
            done += 1

    config = DatabaseConfig(url=url, password=lambda: secret[0], pool=pool)
    async with engine_of(config) as engine, engine.connect() as kept:
        async with asyncio.TaskGroup() as clients:
            for _ in range(6):
                clients.create_task(client(engine))
            for new in ("second", "third"):
                await asyncio.to_thread(role, own_postgres, new, verb="ALTER")
                await asyncio.sleep(0.3)
                secret[0] = new
                before = done
                async with asyncio.timeout(5):
                    while done < before + 50:
                        await asyncio.sleep(0.01)
            ending.set()
        assert await kept.scalar(text("SELECT 1")) == 1  # logged in with the first one


async def test_a_fixed_password_that_is_wrong_is_told_at_once(own_postgres: PostgresServer) -> None:
    url = role(own_postgres, "right").replace("ann@", "ann:wrong@")
    started = time.monotonic()
    async with engine_of(DatabaseConfig(url=url, pool=PoolConfig(timeout=10))) as engine:
        with pytest.raises(DBAPIError, match="password authentication failed"):
            await one(engine)
    assert time.monotonic() - started < 5


async def test_a_url_file_is_read_again_for_each_password(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    url = role(own_postgres, "first")
    file = tmp_path / "url"
    file.write_text(url.replace("ann@", "ann:first@") + "\n")
    environ = {"REVIEWPOINT_DB_URL_FILE": str(file), "REVIEWPOINT_DB_READ_URL_FILE": str(file)}
    config = DatabaseConfig.from_env(environ)
    assert config.password_rotates
    for same in (copy.deepcopy(config.url), pickle.loads(pickle.dumps(config.url))):
        assert isinstance(same, UrlOfFile)
        assert same.path == str(file)
    async with engine_of(config) as engine:
        assert await one(engine) == 1
        role(own_postgres, "second", verb="ALTER")
        file.write_text(url.replace("ann@", "ann:second@"))
        await engine.dispose()
        assert await one(engine) == 1
    assert await config.connect_args(read=True)["password"]() == "second"
    file.write_text(url)
    error = await failure(config.connect_args()["password"])
    assert "its URL has no password any more" in str(error)
    assert is_transient_connect(error)


def test_a_url_without_a_password_of_its_own_is_asked_for_none(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://ann@localhost/papers")
    config = DatabaseConfig.from_env({"REVIEWPOINT_DB_URL_FILE": str(file)})
    assert "password" not in config.connect_args()
    assert not DatabaseConfig(url="postgresql://ann:x@localhost/papers").password_rotates


async def coroutine() -> str:
    await asyncio.sleep(0)
    return "token"


@pytest.mark.parametrize("source", [lambda: "token", coroutine, functools.partial(coroutine)])
async def test_a_function_may_be_asynchronous(source: Any) -> None:
    password = Password(source, 5)
    assert await password() == "token"
    assert repr(password) == "Password(***)"


async def test_a_plain_function_does_not_hold_the_event_loop_up() -> None:
    asked: list[int] = []

    def source() -> str:
        asked.append(threading.get_ident())
        return "token"

    await Password(source, 5)()
    assert asked != [threading.get_ident()]


async def test_a_function_that_hangs_is_bounded_and_tried_again() -> None:
    release = threading.Event()
    started = time.monotonic()
    error = await failure(Password(lambda: str(release.wait(10)), 0.1))
    assert time.monotonic() - started < 3
    assert "gave no answer within 0.08 s" in str(error)
    assert is_transient_connect(error)
    release.set()  # its late answer disturbs nobody
    await asyncio.sleep(0.05)


async def test_a_function_that_hangs_for_ever_uses_up_no_threads() -> None:
    release = threading.Event()

    def source() -> str:
        release.wait(30)
        return "token"

    config = DatabaseConfig(url="postgresql://ann@localhost/papers", password=source)
    for each in (config.connect_args(), config.connect_args(read=True)):
        each["password"].timeout = 0.05
    for _ in range(2):
        # Whoever connects asks by arguments of his own: pools, the watch of replicas.
        errors = await asyncio.gather(
            *(failure(config.connect_args(read=True)["password"]) for _ in range(10))
        )
        assert all(is_transient_connect(error) for error in errors)
    threads = [each for each in threading.enumerate() if each.name == "reviewpoint_db password"]
    assert len(threads) == 10
    release.set()
    for thread in threads:
        thread.join(10)
    assert await config.connect_args(read=True)["password"]() == "token"


async def test_an_answer_after_the_end_of_the_loop_disturbs_nobody() -> None:
    release = threading.Event()

    def source() -> str:
        release.wait(10)
        return "late"

    await asyncio.to_thread(lambda: asyncio.run(failure(Password(source, 0.05))))
    threads = [each for each in threading.enumerate() if each.name == "reviewpoint_db password"]
    release.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


async def test_a_function_that_raises_is_named_without_its_text() -> None:
    def source() -> str:
        raise KeyError("s3cret")

    error = await failure(Password(source, 5))
    assert "raised KeyError at source, line" in str(error)
    assert "s3cret" not in repr(error)
    assert error.__suppress_context__
    assert not is_transient_connect(error)


async def test_a_function_whose_service_is_away_is_tried_again() -> None:
    def source() -> str:
        raise ConnectionRefusedError("s3cret")

    error = await failure(Password(source, 5))
    assert "raised ConnectionRefusedError" in str(error)
    assert is_transient_connect(error)


@pytest.mark.parametrize(("given", "told"), [("", "an empty text"), (None, "a NoneType")])
async def test_an_answer_that_is_no_password_is_refused(given: Any, told: str) -> None:
    error = await failure(Password(lambda: given, 5))
    assert f"the function gave {told}" in str(error)
