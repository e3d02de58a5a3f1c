"""CockroachDB by its dialect: its URLs everywhere, its restarts where the dialect can be imported.

No server of it is run here. The tests of restarts let a real PostgreSQL behind a relay answer as
CockroachDB does: by its version, and by 40001 at a statement and at COMMIT. They are defined only
where `sqlalchemy-cockroachdb` works, which needs SQLAlchemy 2.0: in `make test-lowest`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy import text

from reviewpoint_db import checks, target
from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.engine import backend_of
from reviewpoint_db.errors import ConfigurationError
from reviewpoint_db.postgresql import CockroachDB
from reviewpoint_db.read_session import read_engine_of
from reviewpoint_db.server_postgresql import NOT_IN_COCKROACHDB
from reviewpoint_db.server_view import look_at_server
from tests.support.notes import held
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession

URL = "cockroachdb://ann:secret@db:26257/papers?sslmode=verify-full"
HAS_DIALECT = find_spec("sqlalchemy_cockroachdb") is not None and sqlalchemy.__version__ < "2.1"


@pytest.fixture
def with_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "_has_dialect_of_cockroachdb", lambda: True)


@pytest.mark.parametrize("scheme", ["cockroachdb", "cockroachdb+asyncpg"])
def test_its_url_is_read_as_one_of_postgresql(with_dialect: None, scheme: str) -> None:
    config = DatabaseConfig(url=URL.replace("cockroachdb", scheme, 1))
    assert config.sqlalchemy_url.drivername == "cockroachdb+asyncpg"
    assert config.sqlalchemy_url.port == 26257
    assert (config.backend, config.is_cockroachdb) == ("postgresql", True)
    assert "secret" not in config.safe_url
    assert not DatabaseConfig(url=URL.replace("cockroachdb", "postgresql")).is_cockroachdb


@pytest.mark.parametrize("why", ["missing", "SQLAlchemy 2.1"])
def test_without_its_dialect_the_refusal_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    found = None if why == "missing" else object()
    monkeypatch.setattr(
        target, "find_spec", lambda name: found if "cockroachdb" in name else object()
    )
    monkeypatch.setattr(sqlalchemy, "__version__", "2.0.47" if why == "missing" else "2.1.9")
    with pytest.raises(ConfigurationError) as refused:
        DatabaseConfig(url=URL)
    assert "pip install 'reviewpoint-db[cockroachdb]' 'sqlalchemy<2.1'" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_whether_there_is_the_dialect_is_known() -> None:
    if HAS_DIALECT:
        assert DatabaseConfig(url=URL).is_cockroachdb
    else:
        with pytest.raises(ConfigurationError, match="dialect is not installed"):
            DatabaseConfig(url=URL)


@pytest.mark.parametrize("url", [URL, "postgresql://db/papers"])
def test_it_has_no_replicas_of_our_kind(with_dialect: None, url: str) -> None:
    with pytest.raises(ConfigurationError, match="AS OF SYSTEM TIME"):
        DatabaseConfig(url=url, read_url=URL)


@pytest.mark.parametrize(("declared", "searched"), [(None, False), (True, True)])
def test_its_random_process_id_is_neither_shown_nor_taken_for_pgbouncers(
    with_dialect: None, declared: bool | None, searched: bool
) -> None:
    backend = backend_of(DatabaseConfig(url=URL, pgbouncer=declared))
    assert isinstance(backend, CockroachDB)
    assert backend.pid(object()) is None
    assert vars(backend)["_pgbouncer"] is searched


class _SpeaksItsProtocol:
    """A configuration that is called CockroachDB's while PostgreSQL's dialect speaks."""

    @pytest.fixture
    def claimed(self, monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> Database:
        monkeypatch.setattr(DatabaseConfig, "is_cockroachdb", property(lambda _: True))
        return Database(DatabaseConfig(url=postgres_url))


class TestWhatIsNotThere(_SpeaksItsProtocol):
    async def test_the_view_of_the_server_asks_for_nothing_that_it_lacks(
        self, claimed: Database
    ) -> None:
        async with claimed:
            view = await look_at_server(claimed)
        assert (view.error, view.note, view.connections) == (None, NOT_IN_COCKROACHDB, ())
        assert list(view.figures) == ["version"]

    async def test_its_connections_are_not_counted_by_the_checks(self, claimed: Database) -> None:
        async with claimed:
            found = await checks.run_checks(claimed, processes=10_000)
        assert not [finding for finding in found if finding.id == "RPDB005"]


if HAS_DIALECT:
    VERSION = "CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu, built 2024/05/15 21:28:29, go1.22.2)"
    RESTART = "restart transaction: TransactionRetryWithProtoRefreshError: WriteTooOldError"

    @pytest.fixture
    async def relay(postgres_url: str) -> AsyncIterator[Relay]:
        setup = (
            "CREATE TABLE counters (n int NOT NULL)",
            "INSERT INTO counters VALUES (0)",
            "CREATE SEQUENCE attempts",
            # What a transaction undoes, it does not: the first one restarts, the others do not.
            f"""
            CREATE FUNCTION restart_once() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
              IF nextval('attempts') = 1 THEN
                RAISE EXCEPTION '{RESTART}' USING ERRCODE = '40001';
              END IF;
              RETURN (SELECT n FROM counters);
            END $$
            """,
        )
        direct = Database(DatabaseConfig(url=postgres_url))
        async with direct, direct.session() as session:
            for statement in setup:
                await session.execute(text(statement))
            await session.commit()
        with Relay.to(postgres_url) as relay:
            relay.at("select version()", "rewrite", message=f"select '{VERSION}'::text")
            yield relay

    @pytest.fixture
    async def cockroach(relay: Relay, postgres_url: str) -> AsyncIterator[Database]:
        url = relay.url(postgres_url).replace("postgresql", "cockroachdb", 1)
        async with Database(DatabaseConfig(url=url)) as database:
            yield database

    async def _count(session: AsyncSession, how: str) -> int:
        asked = "SELECT restart_once()" if how == "statement" else "SELECT n FROM counters"
        n = (await session.execute(text(asked))).scalar_one()
        await session.execute(text("UPDATE counters SET n = :n"), {"n": n + 1})
        return int(n) + 1

    async def _stored(database: Database) -> Any:
        async with database.read_session() as session:
            return await session.scalar(text("SELECT n FROM counters"))

    async def test_the_dialect_hears_which_server_it_speaks_to(
        relay: Relay, cockroach: Database
    ) -> None:
        assert await _stored(cockroach) == 0
        dialect: Any = cockroach.engine.dialect
        assert dialect.name == "cockroachdb"
        assert dialect._is_v241plus
        assert not dialect._is_v242plus
        assert relay.triggers[0].fired
        assert read_engine_of(cockroach.engine).sync_engine.get_execution_options()[
            "isolation_level"
        ] == ("AUTOCOMMIT")

    @pytest.mark.parametrize("where", ["statement", "COMMIT"])
    async def test_a_restart_is_run_again_and_stored_once(
        relay: Relay, cockroach: Database, where: str
    ) -> None:
        if where == "COMMIT":
            relay.at("COMMIT", "fail", sqlstate="40001", message=RESTART)
        attempts = 0

        async def work(session: AsyncSession) -> int:
            nonlocal attempts
            attempts += 1
            return await _count(session, where)

        assert await cockroach.run_in_transaction(work) == 1
        assert attempts == 2
        assert held(cockroach) == 0
        assert await _stored(cockroach) == 1
