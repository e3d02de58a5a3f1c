"""What replicas are by themselves; tests/scale/test_replicas.py has real ones."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import NullPool, select, text

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.errors import ConfigurationError, SessionClosedError
from reviewpoint_db.lsn import MAX_LSN, parse_lsn
from reviewpoint_db.read_your_writes import ReadYourWrites, Tokens
from reviewpoint_db.replica_watch import PrimaryLog, ReplicaWatch, Seen, _Stop
from reviewpoint_db.replicas import Replicas
from reviewpoint_db.session_state import state_of
from tests.support.postgres import HOST, free_port
from tests.support.relay import Relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PG = "postgresql://ann:secret@primary/papers"
READ = "postgresql://ann:secret@r1:5432,r2:5433/papers"
SECRET = "a secret of many characters"


def config(**settings: Any) -> DatabaseConfig:
    return DatabaseConfig(**{"url": PG, "read_url": READ, **settings})


def replicas_of(config: DatabaseConfig) -> tuple[Database, Replicas]:
    database = Database(config)
    assert database.replicas is not None
    return database, database.replicas


class TestPrimaryLog:
    def test_one_that_has_all_is_not_behind_however_long_nothing_is_written(self) -> None:
        log = PrimaryLog()
        log.note(100, 1.0)
        log.note(100, 90.0)
        assert log.lag(100) == 0

    def test_one_that_stands_still_falls_behind_from_the_time_it_had_all(self) -> None:
        log = PrimaryLog()
        for lsn, at in ((100, 1.0), (200, 2.0), (300, 9.0)):
            log.note(lsn, at)
        assert (log.lag(150), log.lag(200), log.lag(300)) == (8.0, 7.0, 0.0)

    def test_what_was_before_the_first_look_is_unknown(self) -> None:
        log = PrimaryLog()
        assert log.lag(1) is None
        log.note(100, 1.0)
        assert log.lag(99) is None

    def test_another_primary_that_has_less_begins_anew(self) -> None:
        log = PrimaryLog()
        log.note(300, 1.0)
        log.note(200, 2.0)
        assert (log.lag(250), log.lag(150)) == (0, None)


def test_an_lsn_is_read_as_the_server_writes_it() -> None:
    assert parse_lsn("16/B374D848") == 0x16_B374D848


def test_each_host_has_an_address_of_its_own_that_the_server_keeps_read_only() -> None:
    _, replicas = replicas_of(
        config(engine_options={"connect_args": {"server_settings": {"a": "1"}}})
    )
    found = [host.address() for host in replicas.hosts]
    assert [(one.url.host, one.url.port) for one in found] == [("r1", 5432), ("r2", 5433)]
    for one in found:
        assert one.connect_args["server_settings"]["default_transaction_read_only"] == "on"
        assert one.connect_args["server_settings"]["a"] == "1"
        assert not {"host", "port"} & set(one.connect_args)


def test_a_socket_and_the_drivers_own_default_are_hosts_too() -> None:
    _, replicas = replicas_of(config(read_url="postgresql:///papers?host=/run/pg"))
    address = replicas.hosts[0].address()
    assert (address.url.host, address.connect_args["host"]) == (None, "/run/pg")
    _, replicas = replicas_of(config(read_url="postgresql:///papers"))
    assert replicas.hosts[0].address().url.database == "papers"


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Replicas, "start", lambda self: None)


@pytest.mark.usefixtures("quiet")
class TestTurns:
    def test_those_that_are_fresh_take_turns(self) -> None:
        _, replicas = replicas_of(config())
        for number in (0, 1):
            replicas.tell(number, Seen(lag=0.1, replayed=5))
        assert {replicas.choose() for _ in range(4)} == set(replicas.hosts)
        replicas.lost(replicas.hosts[0])
        assert {replicas.choose() for _ in range(4)} == {replicas.hosts[1]}

    def test_none_left_is_told_once_an_episode_and_not_before_the_first_look(self) -> None:
        database, replicas = replicas_of(config())
        assert replicas.choose() is None
        assert not database.activity.snapshot().warnings
        for _ in range(2):
            for number in (0, 1):
                replicas.tell(number, Seen(error="gone"))
            assert [replicas.choose() for _ in range(3)] == [None] * 3
            replicas.tell(0, Seen(lag=0.1))
        assert database.activity.snapshot().warnings == {"no_replica": 2}
        assert [one.state for one in replicas.states()] == ["reading", "dead"]

    def test_one_too_far_behind_is_not_read(self) -> None:
        _, replicas = replicas_of(config(max_replica_lag=2.0))
        replicas.tell(0, Seen(lag=2.5))
        replicas.tell(1, Seen(lag=None))
        assert replicas.choose() is None
        assert [one.state for one in replicas.states()] == ["lagging", "lagging"]

    def test_one_whose_connection_was_lost_is_dead_until_it_is_seen_again(self) -> None:
        _, replicas = replicas_of(config())
        replicas.tell(0, Seen(lag=0.0))
        replicas.lost(replicas.hosts[0])
        state = replicas.states()[0]
        assert (state.state, state.error) == ("dead", "a connection to it was lost")
        replicas.tell(0, Seen(lag=0.0))
        state = replicas.states()[0]
        assert (state.state, state.error) == ("reading", None)
        replicas.lost(replicas.hosts[0])
        replicas.stop()
        assert replicas.states()[0].state == "unknown"

    def test_without_a_word_of_the_primary_they_are_read_with_one_warning_an_episode(self) -> None:
        database, replicas = replicas_of(config(max_replica_lag=2.0))
        for _ in range(2):
            for number in (0, 1, 0, 1):
                replicas.tell(number, Seen(unmeasured=True))
            assert {replicas.choose() for _ in range(4)} == set(replicas.hosts)
            replicas.tell(0, Seen(lag=2.5))
            replicas.tell(1, Seen(error="gone"))
            assert replicas.choose() is None
        warnings = database.activity.snapshot().warnings
        assert warnings["replica_lag_unknown"] == 2

    def test_one_that_was_promoted_is_read_and_told_of_once(self) -> None:
        database, replicas = replicas_of(config())
        for _ in range(3):
            replicas.tell(0, Seen(in_recovery=False))
        assert replicas.choose() is replicas.hosts[0]
        assert database.activity.snapshot().warnings == {"replica_promoted": 1}
        assert replicas.states()[0].role == "primary"

    async def test_one_that_has_replayed_enough_is_not_asked(self) -> None:
        _, replicas = replicas_of(config())
        replicas.tell(0, Seen(lag=0.1, replayed=5))
        assert await replicas.caught_up(replicas.hosts[0], 5, 0)
        assert not await replicas.caught_up(replicas.hosts[0], MAX_LSN, 5)

    async def test_one_that_was_promoted_is_not_awaited(self) -> None:
        """It replays nothing any more: each read would wait for the whole bound, for nothing."""
        _, replicas = replicas_of(config())
        replicas.tell(0, Seen(in_recovery=False, replayed=5))
        started = time.monotonic()
        assert not await replicas.caught_up(replicas.hosts[0], 6, 30)
        assert time.monotonic() - started < 5

    async def test_one_that_cannot_be_asked_is_not_awaited_beyond_the_bound(self) -> None:
        _, replicas = replicas_of(config(read_url=f"postgresql://ann@{HOST}:{free_port()}/papers"))
        replicas.tell(0, Seen(lag=0.1, replayed=5))
        assert not await replicas.caught_up(replicas.hosts[0], 6, 0.05)

    async def test_one_with_a_pool_of_another_class_dies_without_a_cut(self) -> None:
        _, replicas = replicas_of(config(engine_options={"poolclass": NullPool}))
        replicas.tell(0, Seen(lag=0.1))
        replicas.hosts[0].engine()
        replicas.tell(0, Seen(error="gone"))
        assert replicas.states()[0].state == "dead"

    def test_a_database_that_a_test_led_elsewhere_has_no_replica(self) -> None:
        database, replicas = replicas_of(config())
        for number in (0, 1):
            replicas.tell(number, Seen(lag=0.1))
        replicas._config = lambda: DatabaseConfig(url=PG)
        assert replicas.choose() is None
        assert not database.activity.snapshot().warnings

    async def test_a_stop_that_comes_before_the_watch_has_begun_ends_it(self) -> None:
        asked: list[str] = []

        def address() -> Any:
            asked.append("asked")
            raise ConnectionError

        stop = _Stop()
        stop.request()
        watch = ReplicaWatch(address, [address], limit=1, tell=lambda *_: None)
        await asyncio.wait_for(watch._measure(stop), 5)
        watch.stop()  # and once more, without a start
        assert not asked

    async def test_a_primary_that_became_a_replica_is_connected_to_anew(self) -> None:
        """Of several hosts another one is the primary by then; what this one says is none's place."""

        class Demoted:
            closed = False

            async def ask(self, _question: str) -> tuple[None]:
                return (None,)

            async def close(self) -> None:
                self.closed = True

        demoted: Any = Demoted()
        nobody: Any = None
        log = PrimaryLog()
        watch = ReplicaWatch(nobody, [], limit=1, tell=lambda _number, _seen: None)
        await watch._note_primary(demoted, log)
        assert demoted.closed
        assert log.lag(0) is None

    async def test_an_answer_after_the_stop_brings_no_host_back(self) -> None:
        told: list[Seen] = []
        stop = _Stop()

        class Slow:
            async def ask(self, _question: str) -> tuple[bool, str]:
                stop.request()
                return True, "0/5"

        slow: Any = Slow()
        nobody: Any = None
        watch = ReplicaWatch(nobody, [], limit=1, tell=lambda _, seen: told.append(seen))
        await watch._look(0, slow, PrimaryLog(), stop)
        assert told == []

    async def test_health_and_metrics_tell_of_each(self) -> None:
        from reviewpoint_db.endpoints.debug import debug
        from reviewpoint_db.metrics import exposition

        database, replicas = replicas_of(config())
        replicas.tell(0, Seen(lag=0.25))
        replicas.tell(1, Seen(error="gone"))
        exposed = exposition(database)[0].decode()
        assert (
            'reviewpoint_db_replica_lag_seconds{database="default",replica="r1:5432"} 0.25'
            in exposed
        )
        assert 'reviewpoint_db_replica_up{database="default",replica="r2:5433"} 0.0' in exposed
        assert b"r2:5433" in debug(database).body
        (check,) = database._probe._replicas()
        assert check.detail == "r1:5432: reading, 0.2 s behind; r2:5433: dead"


def test_what_is_started_twice_measures_once_until_the_stop() -> None:
    def watches() -> int:
        return [thread.name for thread in threading.enumerate()].count("reviewpoint_db replicas")

    nobody = f"postgresql://ann@{HOST}:{free_port()}/papers"
    _, replicas = replicas_of(config(url=nobody, read_url=nobody))
    replicas.start()
    replicas.start()
    try:
        assert watches() == 1
    finally:
        replicas.stop()
    assert watches() == 0


@pytest.fixture
async def lagging(postgres_url: str) -> AsyncIterator[tuple[Database, Relay]]:
    """No replica can be read, so the primary is, through a relay."""
    with Relay.to(postgres_url) as relay:
        url = relay.url(postgres_url)
        async with Database(DatabaseConfig(url=url, read_url=url, environment="test")) as database:
            assert database.replicas is not None
            database.replicas._watch.stop()
            database.replicas._watch = SimpleNamespace(running=True, stop=lambda: None)  # type: ignore[assignment]
            database.replicas.tell(0, Seen(error="gone"))
            yield database, relay


async def test_a_read_on_the_primary_in_the_place_of_replicas_is_run_again(
    lagging: tuple[Database, Relay],
) -> None:
    """Its connection was lost, and the primary is no replica that could be left."""
    database, relay = lagging
    async with database.read_session() as session:
        assert await session.scalar(select(text("1"))) == 1
        relay.at("SELECT 2", "cut")
        assert await session.scalar(select(text("2"))) == 2
        assert relay.triggers[0].fired
        assert database.replicas is not None
        assert state_of(session).source is database.replicas._primary


async def test_a_read_session_with_a_bind_of_its_own_asks_no_replica(
    lagging: tuple[Database, Relay],
) -> None:
    database, _ = lagging
    assert database.replicas is not None
    database.replicas.tell(0, Seen(lag=0.0))
    async with database.read_sessionmaker(bind=database.engine) as session:
        assert await session.scalar(text("select 1")) == 1
        assert state_of(session).source is None


async def test_a_read_session_that_is_over_chooses_no_host() -> None:
    database, _ = replicas_of(config())
    async with database.read_session() as unused:
        pass
    with pytest.raises(SessionClosedError, match="is over"):
        await unused.execute(select(1))


def test_without_read_url_there_is_nothing_of_it() -> None:
    database = Database(DatabaseConfig(url=PG))
    assert database.replicas is None
    assert "sources" not in vars(database.read_sessionmaker.class_.sync_session_class)


def test_sqlite_has_no_replicas(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a replica"):
        DatabaseConfig(url=f"sqlite:///{tmp_path}/a", read_url=f"sqlite:///{tmp_path}/b")


class TestTokens:
    def tokens(self, **settings: Any) -> Tokens:
        own = {"read_your_writes": True, "read_your_writes_secret": SECRET, **settings}
        return Tokens(config(**own))

    @pytest.mark.parametrize("secret", [None, "", "short"])
    def test_a_secret_is_needed_and_never_shown(self, secret: str | None) -> None:
        with pytest.raises(ConfigurationError, match="read_your_writes_secret") as refused:
            self.tokens(read_your_writes_secret=secret)
        assert "short" not in str(refused.value)
        assert SECRET not in repr(config(read_your_writes_secret=SECRET))

    def test_without_a_replica_there_is_nothing_to_wait_for(self) -> None:
        with pytest.raises(ConfigurationError, match=r"read_your_writes = True.*give read_url"):
            self.tokens(read_url=None)

    def test_a_token_brings_its_lsn_back(self) -> None:
        for lsn in (0, 77, MAX_LSN):
            assert self.tokens().read(self.tokens().make(lsn)) == lsn

    def test_what_is_forged_cut_or_of_another_counts_as_none(self) -> None:
        token = self.tokens().make(77)
        others = [
            token[:-1],
            token[1:],
            "f" + token,
            "",
            ".",
            "..",
            "é.1.2",
            token.replace(".", ""),
        ]
        others.append(self.tokens(read_your_writes_secret=SECRET[::-1]).make(77))
        others.append(self.tokens(name="other").make(77))
        assert [self.tokens().read(other) for other in others] == [None] * len(others)

    def test_an_old_token_counts_as_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        token = self.tokens().make(77)
        later = time.time() + 11
        monkeypatch.setattr(time, "time", lambda: later)
        assert self.tokens().read(token) is None

    def test_a_request_brings_it_as_cookie_or_header(self) -> None:
        own = {"read_your_writes": True, "read_your_writes_secret": SECRET}
        writes = ReadYourWrites(Database(config(**own)))
        token = self.tokens().make(77).encode()
        cookie = (b"cookie", b"a=b; reviewpoint_db_default=" + token)
        assert writes.required_lsn({"headers": [cookie]}) == 77
        assert writes.required_lsn({"headers": [(writes.header, token)]}) == 77
        assert (
            writes.required_lsn({"headers": [(b"cookie", b"a=b; \xff"), (writes.header, b"x")]})
            is None
        )
        assert writes.required_lsn({}) is None


async def test_a_request_that_stored_something_is_answered_with_a_token(postgres_url: str) -> None:
    settings = DatabaseConfig(
        url=postgres_url,
        read_url=postgres_url,
        environment="test",
        read_your_writes=True,
        read_your_writes_secret=SECRET,
    )
    async with Database(settings) as database:
        writes = ReadYourWrites(database)
        answers: list[Any] = []

        async def send(message: Any) -> None:
            answers.append(message)

        for statement, told in (("select 1", False), ("create table t (id int)", True)):
            unit = database.unit_of_work()
            if told:
                await unit.session.execute(text(statement))
            await unit.session.commit()
            start = {"type": "http.response.start", "status": 200, "headers": []}
            await writes.telling(unit, {"scheme": "https"}, send)(start)
            await unit.release()
            names = [name for name, _ in answers[-1]["headers"]]
            assert (b"set-cookie" in names) is told
        lsn = writes.required_lsn({"headers": answers[-1]["headers"]})
        assert lsn is not None
        assert lsn < MAX_LSN
        assert b"; Secure" in dict(answers[-1]["headers"])[b"set-cookie"]


async def test_when_the_primary_falls_silent_after_the_commit_the_client_reads_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is stored is a success; where it stands nobody could say."""
    monkeypatch.setattr("reviewpoint_db.read_your_writes._ASKING", 0.05)
    own = {"read_your_writes": True, "read_your_writes_secret": SECRET}
    nobody = f"postgresql://ann@{HOST}:{free_port()}/papers"
    writes = ReadYourWrites(Database(config(url=nobody, **own)))
    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    unit: Any = SimpleNamespace(stored=True, unanswered=False)
    await writes.telling(unit, {}, send)({"type": "http.response.start", "status": 201})
    assert answers[0]["status"] == 201
    assert writes.required_lsn({"headers": answers[0]["headers"]}) == MAX_LSN


async def test_what_a_request_stored_stays_told_whatever_it_does_afterwards(
    postgres_url: str,
) -> None:
    config = DatabaseConfig(url=postgres_url, read_url=postgres_url, environment="test")
    async with Database(config) as database:
        unit = database.unit_of_work()
        await unit.session.execute(text("create table if not exists told (id int)"))
        before = unit.stored
        await unit.session.commit()
        await unit.session.execute(text("select 1"))
        await unit.session.rollback()
        assert [before, unit.stored] == [False, True]
        await unit.release()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("first", ["session", "read_session"])
async def test_a_request_reads_from_the_primary_what_it_has_stored(
    postgres_url: str, first: str
) -> None:
    config = DatabaseConfig(url=postgres_url, read_url=postgres_url, environment="test")
    async with Database(config) as database:
        replicas = database.replicas
        assert replicas is not None
        replicas._watch = SimpleNamespace(running=True, stop=lambda: None)  # type: ignore[assignment]
        replicas.tell(0, Seen(lag=0.0, replayed=1))
        unit = database.unit_of_work()
        getattr(unit, first)
        session, reading = unit.session, unit.read_session
        assert await reading.scalar(text("select 1")) == 1
        assert state_of(reading).source is replicas.hosts[0]
        await session.execute(text("create table if not exists told (id int)"))
        await session.rollback()
        assert await reading.scalar(text("select 1")) == 1
        assert state_of(reading).source is replicas.hosts[0]
        await session.execute(text("create table if not exists told (id int)"))
        await session.commit()
        for _ in range(2):
            assert await reading.scalar(text("select 1")) == 1
            assert state_of(reading).source is replicas._primary
        await unit.release()
