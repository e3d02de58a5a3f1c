"""A configuration is right, or refused at once with the field, its value and the fix."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import ssl
import sys
import traceback
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import exc, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from reviewpoint_db.config import DatabaseConfig, PoolConfig, normalize_url
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.target import Target, understand

PG = "postgresql://ann:secret@localhost/papers"


@pytest.fixture
def without_xdist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


@pytest.fixture
def with_xdist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")


def refusal(**fields: Any) -> str:
    """The message of the refusal, which must tell the fix and no password."""
    with pytest.raises(ConfigurationError) as caught:
        DatabaseConfig(**fields)
    message = str(caught.value)
    assert "Fix: " in message
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    return message


# --- URLs ---


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u@h/db", "postgresql+asyncpg://u@h/db"),
        ("postgresql://u@h/db", "postgresql+asyncpg://u@h/db"),
        ("POSTGRESQL+asyncpg://u@h:1/db", "postgresql+asyncpg://u@h:1/db"),
        (
            "postgresql://u:p%40@[::1]:1/db?sslmode=require",
            "postgresql+asyncpg://u:p%40@[::1]:1/db",
        ),
        (
            "postgresql:///?host=h:1&user=u&password=p%2B%25&dbname=db",
            "postgresql+asyncpg://u:p+%25@h:1/db",
        ),
        ("sqlite://", "sqlite+aiosqlite://"),
        ("sqlite:///x.db", "sqlite+aiosqlite:///x.db"),
        ("sqlite+aiosqlite:////tmp/x.db?timeout=3", "sqlite+aiosqlite:////tmp/x.db?timeout=3"),
    ],
)
def test_a_url_is_normalized(url: str, expected: str) -> None:
    assert normalize_url(url).render_as_string(hide_password=False) == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://u:secret@h:port/db", "not a database URL"),
        ("nonsense:secret", "it has no ://. Fix: write postgresql://"),
        ("sqlite+aiosqlite:secret.db", "it has no ://. Fix: write postgresql://"),
        ("host=h dbname=db password=secret", "it has no ://"),
        ("", "it is empty"),
        ("postgresql://u:secret@h/db\n", "there is white space around it"),
        (" postgresql://u:secret@h/db", "there is white space around it"),
        ('"postgresql://u:secret@h/db"', "there are quotation marks around it. Fix: remove them"),
        ("'sqlite:///secret'", "there are quotation marks around it"),
        ("DATABASE_URL=postgresql://u:secret@h/db", "it begins with the name of a variable"),
        ("export URL=postgresql://u:secret@h/db", "it begins with the name of a variable"),
        ("${secret_URL}", "it is the name of a variable"),
        ("postgresql://u:p@secret/x@h/db", "percent-encode"),
        ("mysql://u:secret@h/db", "the driver mysql is not supported"),
        ("postgresql+psycopg2://u:secret@h/db", "use postgresql+asyncpg://"),
        ("postgresql+psycopg://u:secret@h/db", "is not supported"),
        ("sqlite+pysqlite:///x", "use sqlite+aiosqlite://"),
        ("sqlite://x.db", "three slashes"),
        ("sqlite://u:secret@/x.db", "no host and no user"),
        ("sqlite:///x?mode=ro", "without uri=true"),
        ("sqlite:///x?colour=red", "an unknown parameter"),
        ("sqlite:///x?timeout=soon", "timeout is not a number"),
        ("postgresql://u:secret@h:0/db", "a port is not between"),
        ("postgresql://u:secret@h:65536/db", "a port is not between"),
        ("postgresql://u:secret@h1,:1/db", "name every host"),
        (17, "not a string"),
        (make_url("postgresql://u:secret@h/db"), "url.render_as_string(hide_password=False)"),
    ],
)
def test_a_wrong_url_is_refused(url: Any, problem: str) -> None:
    for field in ("url", "read_url"):
        message = refusal(**{field: url})
        assert message.startswith(f"{field} = ")
        assert problem in message


@pytest.mark.parametrize("driver", ["asyncpg", "aiosqlite"])
def test_a_driver_that_is_not_installed_is_refused(
    driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    assert importlib.util.find_spec(driver) is None
    message = refusal(url=PG if driver == "asyncpg" else "sqlite://")
    assert f"pip install {driver}" in message


@pytest.mark.parametrize(
    ("url", "in_memory"),
    [
        ("sqlite://", True),
        ("sqlite:///:memory:", True),
        ("sqlite:///file::memory:?uri=true&cache=shared", True),
        ("sqlite:///file:x?mode=memory&uri=true", True),
        ("sqlite:///x.db", False),
        (PG, False),
        (None, False),
    ],
)
def test_which_databases_are_in_memory(url: str | None, in_memory: bool) -> None:
    assert DatabaseConfig(url=url).in_memory == in_memory


# --- fields ---


@pytest.mark.parametrize(
    "field",
    ["connect_timeout", "query_timeout", "health_timeout", "leak_threshold"],
)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True, None])
def test_a_time_limit_is_positive(field: str, value: object) -> None:
    assert refusal(**{field: value}).startswith(f"{field} = {value!r}: ")


@pytest.mark.parametrize(
    "field", ["idle_in_transaction_threshold", "slow_statement", "retry_after"]
)
def test_a_threshold_is_not_negative(field: str) -> None:
    assert "give 0 or more" in refusal(**{field: -0.5})
    assert getattr(msgspec.structs.replace(DatabaseConfig(), **{field: 0}), field) == 0


def test_a_time_limit_below_a_second_is_one() -> None:
    assert DatabaseConfig(query_timeout=0.05).query_timeout == 0.05


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"environment": "production"},
            "environment = 'production': unknown. Fix: use one of dev, test, prod.",
        ),
        ({"environment": "prod"}, "url = None: production needs a database of its own"),
        ({"name": ""}, "name = '': not a name"),
        ({"name": "a b"}, "name = 'a b': not a name"),
        ({"name": 3}, "name = 3: not a name"),
        ({"expected_processes": 0}, "expected_processes = 0: too small"),
        ({"expected_processes": 1.5}, "not a whole number"),
        ({"pool": 5}, "pool = a int: not a PoolConfig"),
        ({"session_class": dict}, "give a subclass of sqlalchemy.ext.asyncio.AsyncSession"),
        ({"session_class": "Session"}, "not a class of sessions"),
        ({"engine_options": ["echo"]}, "engine_options = a list: not a mapping"),
        ({"engine_options": {"pool_size": 3}}, "use pool=PoolConfig(size=...)"),
        (
            {"engine_options": {"echoo": True}},
            "SQLAlchemy has no such option. Fix: did you mean echo? See https://docs.sqlalchemy.org/",
        ),
        ({"engine_options": {"pool_sise": 3}}, "did you mean pool=PoolConfig(size=...)?"),
        ({"url": "sqlite://", "pool": PoolConfig(size=5)}, "pool.size = 5: sqlite:// is in memory"),
        ({"url": "sqlite://", "pool": PoolConfig(max_overflow=1)}, "in memory"),
        ({"url": PG, "read_url": "sqlite:///x"}, "not a replica"),
        ({"url": "sqlite:///x", "read_url": "sqlite://"}, "not a replica"),
        ({"url": PG, "password": "secret"}, "password = ***: not callable"),
        ({"url": PG, "password": lambda: "x"}, "has one too"),
        ({"url": "sqlite://", "password": lambda: "x"}, "SQLite has no passwords"),
    ],
)
def test_a_wrong_field_is_refused(fields: dict[str, Any], message: str) -> None:
    assert message in refusal(**fields)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", 0, "give 1 or more"),
        ("size", -1, "give 1 or more"),
        ("size", 1.5, "not a whole number"),
        ("max_overflow", -1, "give 0 or more"),
        ("timeout", 0, "give more than 0"),
        ("idle_timeout", -1, "give 0 or more"),
        ("max_lifetime", 0, "give more than 0"),
        ("ping_after_idle", -1, "give 0 or more"),
        ("reset_on_return", "maybe", "use rollback or commit"),
    ],
)
def test_a_wrong_limit_of_the_pool_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(
        ConfigurationError, match=re.escape(f"pool.{field} = {value!r}: ")
    ) as caught:
        PoolConfig(**{field: value})
    assert message in str(caught.value)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="urll"):
        DatabaseConfig(urll=PG)  # type: ignore[call-arg]


def test_a_refusal_is_an_argument_error_of_sqlalchemy() -> None:
    with pytest.raises(exc.ArgumentError):
        DatabaseConfig(environment="staging")  # type: ignore[arg-type]


def test_a_configuration_cannot_be_changed() -> None:
    config = DatabaseConfig(url=PG)
    with pytest.raises(AttributeError):
        config.url = "sqlite://"  # type: ignore[misc]
    options = {"echo": True}
    config = DatabaseConfig(engine_options=options)
    options["echo"] = False
    assert config.engine_options == {"echo": True}


def test_a_changed_copy_is_checked_and_understood_anew() -> None:
    config = DatabaseConfig(url=PG)
    assert msgspec.structs.replace(config, url="sqlite://").backend == "sqlite"
    with pytest.raises(ConfigurationError):
        msgspec.structs.replace(config, query_timeout=0)


def test_without_a_url_it_is_a_file_here() -> None:
    config = DatabaseConfig(environment="test")
    assert config.sqlalchemy_url.database == "./reviewpoint.sqlite3"
    assert config.backend == "sqlite"
    assert (config.safe_read_url, config.read_sqlalchemy_url) == (None, None)


# --- environment ---


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("sqlite://", "dev"),
        ("postgresql://localhost/db", "dev"),
        ("postgresql://127.0.0.2/db", "dev"),
        ("postgresql://[::1]/db", "dev"),
        ("postgresql:///db?host=/run/postgresql", "dev"),
        ("postgresql:///db", "dev"),
        ("postgresql://db.example.org/db", "prod"),
        ("postgresql://10.0.0.1/db", "prod"),
        ("postgresql://localhost,10.0.0.1/db", "prod"),
    ],
)
def test_an_environment_that_is_not_set_is_dev_only_on_this_machine(
    url: str, environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    config = DatabaseConfig(url=url)
    assert config.effective_environment == environment
    assert config.debug_allowed == (environment == "dev")
    assert (config.debug_closed_reason is None) == config.debug_allowed


def test_the_host_that_the_driver_takes_from_the_environment_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "db.example.org")
    config = DatabaseConfig(url="postgresql:///db")
    assert "db.example.org is not this machine" in (config.debug_closed_reason or "")


def test_a_remote_replica_counts() -> None:
    config = DatabaseConfig(url="postgresql://localhost/db", read_url="postgresql://10.0.0.1/db")
    assert not config.debug_allowed


@pytest.mark.parametrize(
    ("environment", "allowed"), [("dev", True), ("test", True), ("prod", False)]
)
def test_a_given_environment_decides(environment: Any, allowed: bool) -> None:
    config = DatabaseConfig(url="postgresql://10.0.0.1/db", environment=environment)
    assert config.effective_environment == environment
    assert config.debug_allowed == allowed


# --- pool ---


@pytest.mark.usefixtures("without_xdist")
@pytest.mark.parametrize(
    ("environment", "limits"), [("dev", (5, 10)), ("test", (5, 10)), ("prod", (10, 20))]
)
def test_the_pool_by_the_environment(environment: Any, limits: tuple[int, int]) -> None:
    pool = DatabaseConfig(url=PG, environment=environment).effective_pool
    assert (pool.size, pool.max_overflow) == limits
    assert pool.reset_on_return == "rollback"


@pytest.mark.usefixtures("without_xdist")
def test_a_given_limit_leaves_the_others_to_the_environment() -> None:
    config = DatabaseConfig(url=PG, environment="prod", pool=PoolConfig(timeout=3, size=4))
    pool = config.effective_pool
    assert (pool.size, pool.max_overflow, pool.timeout) == (4, 20, 3)


@pytest.mark.usefixtures("with_xdist")
@pytest.mark.parametrize("environment", ["dev", "test", "prod"])
def test_the_pool_of_parallel_tests(environment: Any) -> None:
    pool = DatabaseConfig(url=PG, environment=environment).effective_pool
    assert (pool.size, pool.max_overflow, pool.reset_on_return) == (1, 1, "commit")


@pytest.mark.usefixtures("with_xdist")
def test_a_given_size_wins_over_parallel_tests() -> None:
    pool = DatabaseConfig(url=PG, pool=PoolConfig(size=5, max_overflow=10)).effective_pool
    assert (pool.size, pool.max_overflow, pool.reset_on_return) == (5, 10, "rollback")


@pytest.mark.usefixtures("with_xdist")
def test_parallel_tests_change_nothing_on_sqlite() -> None:
    assert DatabaseConfig(url="sqlite:///x").effective_pool.size == 5


def test_an_in_memory_database_takes_other_limits() -> None:
    config = DatabaseConfig(url="sqlite://", pool=PoolConfig(timeout=3))
    assert config.effective_pool.timeout == 3


# --- arguments of the driver ---


@pytest.mark.usefixtures("without_xdist")
def test_the_arguments_of_asyncpg() -> None:
    arguments = DatabaseConfig(url=PG, name="main", connect_timeout=3).connect_args()
    name = arguments.pop("server_settings")["application_name"]
    assert re.fullmatch(rf"main@.+:{os.getpid()}", name)
    assert arguments == {"timeout": 3, "command_timeout": 30.0}


@pytest.mark.usefixtures("without_xdist")
def test_a_long_application_name_keeps_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "hôst" * 30)
    arguments = DatabaseConfig(url=PG).connect_args()
    name = arguments["server_settings"]["application_name"]
    assert len(name.encode()) == 63
    assert name.endswith(f":{os.getpid()}")


@pytest.mark.usefixtures("with_xdist")
def test_the_application_name_of_parallel_tests() -> None:
    settings = DatabaseConfig(url=PG).connect_args()["server_settings"]
    assert settings["application_name"] == f"reviewpoint_test_gw3_{os.getpid()}"


def test_the_arguments_of_aiosqlite() -> None:
    config = DatabaseConfig(url="sqlite:///x", pool=PoolConfig(timeout=3), query_timeout=7)
    arguments = config.connect_args()
    assert arguments["factory"](":memory:").query_timeout == 7
    del arguments["factory"]
    assert arguments == {"check_same_thread": False, "timeout": 3.0}
    config = DatabaseConfig(url="sqlite:///x?timeout=1.5")
    assert config.connect_args()["timeout"] == 1.5


async def test_the_password_function_goes_to_the_driver() -> None:
    def password() -> str:
        return "token"

    config = DatabaseConfig(url="postgresql://ann@localhost/db", password=password)
    assert await config.connect_args()["password"]() == "token"


def test_the_replica_has_arguments_of_its_own() -> None:
    config = DatabaseConfig(url=PG, read_url="postgresql://10.0.0.1/db?sslmode=disable")
    assert config.connect_args(read=True)["ssl"] == "disable"
    assert "ssl" not in config.connect_args()
    assert "ssl" not in DatabaseConfig(url=PG).connect_args(read=True)
    assert config.safe_read_url == "postgresql://10.0.0.1/db?sslmode=disable"
    assert config.read_sqlalchemy_url is not None
    assert config.read_sqlalchemy_url.host == "10.0.0.1"


def test_the_time_limit_of_the_url_is_that_of_the_configuration() -> None:
    config = DatabaseConfig(url=f"{PG}?connect_timeout=7", connect_timeout=3)
    assert config.connect_timeout == 7
    assert config.connect_args()["timeout"] == 7


async def connected(config: DatabaseConfig, statement: str) -> object:
    """What a statement answers over a connection made as the configuration says."""
    engine = create_async_engine(config.sqlalchemy_url, connect_args=config.connect_args())
    try:
        async with engine.connect() as connection:
            return (await connection.execute(text(statement))).scalar_one()
    finally:
        await engine.dispose()


async def test_the_server_sees_the_parameters_of_the_url(postgres_url: str) -> None:
    options = quote("-c search_path=papers -c work_mem=5MB")
    config = DatabaseConfig(url=f"{postgres_url}?options={options}&application_name=me")
    assert await connected(config, "SHOW search_path") == "papers"
    assert await connected(config, "SHOW work_mem") == "5MB"
    assert await connected(config, "SHOW application_name") == "me"


async def test_the_host_in_the_parameters_is_the_host(postgres_url: str) -> None:
    url = normalize_url(postgres_url)
    query = (
        f"host={url.host}&port={url.port}&user={url.username}&password={quote(url.password or '')}"
    )
    config = DatabaseConfig(url=f"postgresql:///{url.database}?{query}&sslmode=prefer")
    assert await connected(config, "SELECT current_database()") == url.database


async def test_of_several_hosts_the_one_with_the_wanted_role_is_used(postgres_url: str) -> None:
    url = normalize_url(postgres_url)
    hosts = f"{url.host}:1,{url.host}:{url.port}"
    login = f"{url.username}:{quote(url.password or '', safe='')}"
    config = DatabaseConfig(
        url=f"postgresql://{login}@{hosts}/{url.database}?target_session_attrs=primary"
    )
    assert await connected(config, "SELECT pg_is_in_recovery()") is False


async def test_a_password_function_is_asked_for_each_connection(postgres_url: str) -> None:
    url = normalize_url(postgres_url)
    asked: list[None] = []

    def password() -> str:
        asked.append(None)
        return url.password or ""

    without = f"postgresql://{url.username}@{url.host}:{url.port}/{url.database}"
    config = DatabaseConfig(url=without, password=password)
    await connected(config, "SELECT 1")
    await connected(config, "SELECT 1")
    assert len(asked) == 2


async def test_tls_is_demanded_as_the_url_says(postgres_url: str, certificates: str) -> None:
    """The test's server has no TLS: a connection must fail that demands it."""
    for query in ("sslmode=require", f"sslmode=verify-full&sslrootcert={certificates}"):
        with pytest.raises(ConnectionError, match="SSL"):
            await connected(DatabaseConfig(url=f"{postgres_url}?{query}"), "SELECT 1")
    assert await connected(DatabaseConfig(url=f"{postgres_url}?sslmode=allow"), "SELECT 1") == 1


@pytest.fixture(scope="module")
def certificates() -> str:
    """A bundle of certificates: that of this system, or certifi's, which httpx brings."""
    import certifi

    return ssl.get_default_verify_paths().cafile or certifi.where()


# --- secrets ---


class Session(AsyncSession):
    """A session class of an application."""


def test_the_repr_shows_what_was_given_and_no_secret() -> None:
    config = DatabaseConfig(
        url=f"{PG}?sslmode=disable",
        read_url="postgresql://ann:secret@10.0.0.1/papers?sslpassword=secret",
        session_class=Session,
        engine_options={"connect_args": {"password": "secret"}},
        query_timeout=3.0,
    )
    shown = repr(config)
    assert "url='postgresql://ann:***@localhost/papers?sslmode=disable'" in shown
    assert "read_url='postgresql://ann:***@10.0.0.1/papers?sslpassword=***'" in shown
    assert "engine_options=['connect_args']" in shown
    assert "query_timeout=3.0" in shown
    assert "health_timeout" not in shown
    assert "secret" not in shown + str(config) + f"{config}" + repr(config.__rich_repr__())
    assert "password=***" in repr(DatabaseConfig(url="postgresql://h/d", password=lambda: "x"))


@pytest.mark.usefixtures("without_xdist")
def test_the_repr_shows_the_sizes_that_the_pool_will_have() -> None:
    pool = PoolConfig(timeout=3)
    sizes = DatabaseConfig(url=PG, environment="prod").effective_pool
    shown = repr(DatabaseConfig(url=PG, environment="prod", pool=pool))
    assert (
        f"pool=PoolConfig(size={sizes.size}, max_overflow={sizes.max_overflow}, timeout=3," in shown
    )
    assert sizes.size != pool.size
    assert repr(pool).startswith("PoolConfig(size=by environment, max_overflow=by environment, ")
    assert repr(PoolConfig(size=5)).startswith("PoolConfig(size=5, max_overflow=by environment, ")
    assert f"{pool.size} {pool.size + 1}" == "5 6"


def test_the_repr_of_what_a_url_points_to_is_safe() -> None:
    target = understand("url", PG)
    assert isinstance(target, Target)
    assert repr(target) == "Target('postgresql://ann:***@localhost/papers')"


def made(url: str) -> DatabaseConfig | ConfigurationError:
    try:
        return DatabaseConfig(url=url)
    except ConfigurationError as error:
        return error


START, END = "QxStartQ", "QxEndQ"
HOSTILE = st.text(st.sampled_from("@:/?#%&=+ '\"\\[],;é☃1a"), max_size=6)


@given(HOSTILE, HOSTILE, st.booleans())
@example("@/?#", "%", True)
@example("a&", "=b", False)
def test_a_hostile_password_is_used_and_never_shown(before: str, after: str, encode: bool) -> None:
    """Percent-encoded it must be understood; as it is, it may be refused."""
    password = f"{before}{START}{after}{END}"
    written = quote(password, safe="") if encode else password
    for url in (
        f"postgresql://ann:{written}@localhost/papers",
        f"postgresql://localhost/papers?user=ann&password={written}",
        f"mysql://ann:{written}@localhost/papers",
        f"sqlite://ann:{written}@localhost/papers",
        f"postgresql://ann:{written}@localhost/papers?sslmode=never",
    ):
        config = made(url)
        if isinstance(config, ConfigurationError):
            shown = "".join(traceback.format_exception(config)) + repr(config)
            assert not encode or not url.startswith("postgresql") or "never" in url
            assert config.__context__ is None
        else:
            shown = f"{config!r} {config} {config.safe_url} {config.sqlalchemy_url!r}"
            assert not encode or config.sqlalchemy_url.password == password
        assert START not in shown
        assert END not in shown


@pytest.mark.parametrize(("declared", "asked"), [(None, True), (False, False), (True, False)])
def test_the_keepalive_is_asked_of_a_server_and_of_no_pgbouncer(
    declared: bool | None, asked: bool
) -> None:
    """Which refuses a login for it; in session mode (False) too."""
    config = DatabaseConfig(url="postgresql://ann@db/papers", pgbouncer=declared)
    settings = config.connect_args()["server_settings"]
    assert any(name.startswith("tcp_") for name in settings) is asked
