"""Kit: the testing kit of one process of one run; the pytest plugin's fixtures translate it."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reviewpoint_db.config import DatabaseConfig
from reviewpoint_db.database import Database
from reviewpoint_db.testing.channel import Channel
from reviewpoint_db.testing.checks import held_by, refuse_leaks
from reviewpoint_db.testing.embedded import installed_version, start_server
from reviewpoint_db.testing.faults import DriverErrors, Faults
from reviewpoint_db.testing.leftovers import SERVER
from reviewpoint_db.testing.outside import Refusal, Stored, by_a_fixture, by_a_test
from reviewpoint_db.testing.postgresql import PostgresErrors, PostgresGround, PostgresStandIn
from reviewpoint_db.testing.redirect import Redirect, Target
from reviewpoint_db.testing.sandbox import TURN_TIMEOUT, Sandbox
from reviewpoint_db.testing.schema import Schema
from reviewpoint_db.testing.servers import Files, Home, Server
from reviewpoint_db.testing.sqlite import SQLiteErrors, SQLiteGround, SQLiteStandIn
from reviewpoint_db.testing.thread import LoopThread
from reviewpoint_db_pytest.run import NOTED, Run

__all__ = ["Kit", "OpenSandbox"]


class OpenSandbox:
    """A sandbox while its test runs.

    Args:
        sandbox: The outer transaction.
        faults: The outages that the test makes.
        database: The test's own way in: its sessions take no turn and no fault.
    """

    def __init__(self, sandbox: Sandbox, faults: Faults, database: Database) -> None:
        self.sandbox = sandbox
        self.faults = faults
        self.database = database


class Kit:
    """Everything of one process: its databases, its sandbox, and where applications lead to.

    Args:
        run: The run, as this process sees it.
        url: The configured database, whose server is used; None for an embedded one.
        reuse: Keep the databases for the next run.
        rebuild: Make anew what the last run kept.
        keep: The folder for what is kept of SQLite.
        turn_timeout: Seconds that a party waits for its turn in the sandbox.
    """

    def __init__(
        self,
        run: Run,
        url: str | None,
        *,
        reuse: bool = False,
        rebuild: bool = False,
        keep: Path | None = None,
        turn_timeout: float = TURN_TIMEOUT,
    ) -> None:
        self._run = run
        self._url = url
        self._reuse = reuse
        self._rebuild = rebuild
        self._folder = keep if reuse and keep is not None else run.folder / "sqlite"
        self._turn_timeout = turn_timeout
        self._numbers = itertools.count(1)
        self._ground: Any = None
        self._home: Home | None = None
        self.owner = LoopThread()
        self.redirect = Redirect(self.owner, Target(None))
        self.redirect.install()

    # -- databases --------------------------------------------------------------------------

    @property
    def home(self) -> Home:
        """Where the run's databases are."""
        if self._home is None:
            self._run.watch()
            url = self._url
            if url is None and installed_version() is not None:
                url = self._run.once("server", lambda: start_server(self._run.folder))
            if url is not None and DatabaseConfig(url=url).backend == "postgresql":
                if self._url is not None:  # else the server goes as a whole
                    self._run.once(SERVER, lambda: url)
                self._home = Server(url, self.owner)
                self._base = Server.base_name(DatabaseConfig(url=url).sqlalchemy_url)
            else:
                self._home = Files(self._folder)
                self._base = "test"
        return self._home

    def _name(self, part: str) -> str:
        home = self.home
        del home  # it decides what the names begin with
        return f"{self._base}_{part}"

    def worker_database(self, schema: Schema) -> str:
        """Copy this worker's database from the template, which may be kept; return its URL."""
        name = self._name(self._run.worker)
        mark = self._run.once("template", lambda: self._make_template(schema))
        # Also where one is kept: tests may have stored something in it for good.
        self._make_worker(name, mark)
        url = self.home.url(name)
        self.redirect.set_base(Target(url))
        return url

    def _make_template(self, schema: Schema) -> str:
        """Make the template, unless it is kept; return what the copies of it are marked with."""
        name = self._name("template")
        mark = self._run.folder.name
        if self._reuse:
            mark = schema.fingerprint(self.home.url(name))
        kept = self._reuse and not self._rebuild and self.home.mark_of(name) == mark
        self._drop_strays(all_of_them=not kept)
        if not kept:
            self._fill(name, mark, schema)
        return mark

    def _fill(self, name: str, mark: str, schema: Schema) -> None:
        self._note(name)
        url = self.home.create(name)
        if not self._reuse:
            self.home.mark(name, mark)  # from now on, these names are this run's
        with self.redirect.to(Target(url)):
            schema.fill(url, self.owner)
        self.home.leave(name)
        if self._reuse:
            self.home.mark(name, mark)

    def _make_worker(self, name: str, mark: str) -> None:
        self._note(name)
        self._copy(name)
        self.home.mark(name, mark)

    def _drop_strays(self, *, all_of_them: bool) -> None:
        """Drop what earlier runs left: clones of a killed one, or all of their databases."""
        of_a_run = rf"{re.escape(self._base)}_(template|main|gw\d+)"
        stray = re.compile(of_a_run + (r"(_clone\d+)?" if all_of_them else r"_clone\d+"))
        for name in self.home.names():
            if stray.fullmatch(name):
                self.home.drop(name)

    def _copy(self, name: str) -> str:
        self.home.drop(name)
        return self.home.create(name, self._name("template"))

    def _note(self, name: str) -> None:
        """Note a database on a server that goes on, for the end of the run."""
        if self._reuse or self._url is None or not isinstance(self.home, Server):
            return
        with self._run.lock(NOTED), (self._run.folder / NOTED).open("a") as file:
            file.write(f"{name}\n")

    # -- what tests get ---------------------------------------------------------------------

    @contextlib.contextmanager
    def clone(self) -> Iterator[str]:
        """Give a test a database of its own; all databases of the process lead there."""
        name = self._name(f"{self._run.worker}_clone{next(self._numbers)}")
        self._note(name)
        url = self._copy(name)
        try:
            with self.redirect.to(Target(url)):
                yield url
        finally:
            self.home.drop(name)

    @contextlib.contextmanager
    def sandbox(self, test: str) -> Iterator[OpenSandbox]:
        """Have everything in a block happen inside of one transaction, which is undone.

        Args:
            test: Names whose block it is.
        """
        url = self.home.url(self._name(self._run.worker))
        if self._ground is None or self._ground.closed:
            self._ground = self.owner.run(self._connect(url))
        sandbox = Sandbox(self._ground, test=test, turn_timeout=self._turn_timeout)
        self.owner.run(sandbox.open())
        faults = Faults()
        config = DatabaseConfig(url=url, environment="test")
        guest = Database(config)
        self.redirect.spare(guest, self._guests(config, sandbox))
        try:
            with self.redirect.to(Target(url, self._connector(sandbox, faults))):
                yield OpenSandbox(sandbox, faults, guest)
        finally:
            self.owner.run(sandbox.close())
            if sandbox.escaped is not None:
                self._heal()

    def _guests(self, config: DatabaseConfig, sandbox: Sandbox) -> DatabaseConfig:
        from sqlalchemy.pool import NullPool

        made = Target(config.url, self._connector(sandbox, None)).applied_to(config)
        # A pool belongs to a loop, and the test's own session may be used from several.
        return DatabaseConfig(
            url=made.url,
            environment="test",
            engine_options={**made.engine_options, "poolclass": NullPool},
        )

    def _connector(self, sandbox: Sandbox, faults: Faults | None) -> Any:
        ground = self._ground

        def channel(errors: DriverErrors) -> Channel:
            return Channel(sandbox, self.owner, faults, errors)

        async def connect(*_: object, **__: object) -> PostgresStandIn | SQLiteStandIn:
            if faults is not None:
                await faults.on_connect()
            if isinstance(ground, PostgresGround):
                return PostgresStandIn(ground, channel(PostgresErrors()))
            return SQLiteStandIn(ground.driver, channel(SQLiteErrors()))

        return connect

    async def _connect(self, url: str) -> PostgresGround | SQLiteGround:
        config = DatabaseConfig(url=url, environment="test")
        if config.backend == "postgresql":
            return PostgresGround(await Server(url, self.owner).connect())
        import aiosqlite

        driver = await aiosqlite.connect(
            str(config.sqlalchemy_url.database), isolation_level=None, check_same_thread=False
        )
        await driver.execute("PRAGMA journal_mode = WAL")
        await driver.execute("PRAGMA synchronous = OFF")
        await driver.execute("PRAGMA foreign_keys = ON")
        return SQLiteGround(driver)

    def _heal(self) -> None:
        """Make the worker's database anew, since something was stored in it for good."""
        self._disconnect()
        name = self._name(self._run.worker)
        mark = self.home.mark_of(name)
        assert mark is not None
        self._make_worker(name, mark)

    def _disconnect(self) -> None:
        if self._ground is not None:
            ground, self._ground = self._ground, None
            with contextlib.suppress(OSError):
                self.owner.run(ground.close())

    # -- what happens outside of every sandbox ------------------------------------------------

    def refuse_until_made(self) -> None:
        """Refuse the configured database until this worker has one of its own."""
        self.redirect.set_base(Refusal(by_a_test))

    @contextlib.contextmanager
    def refusal(self) -> Iterator[None]:
        """Refuse the database to a test that did not ask for it."""
        with self.redirect.to(Refusal(by_a_test)):
            yield

    @contextlib.contextmanager
    def beyond_a_test(self, what: str, *, asks: bool, strict: bool) -> Iterator[Stored]:
        """Have a fixture that lives longer than a test begin or end.

        Args:
            what: Names it.
            asks: Whether it asks for the worker's database.
            strict: Whether the database is refused to who does not ask.
        """
        now, base = self.redirect.target, self.redirect.base
        stored = Stored(base.url)
        if now is not base and not isinstance(now, Refusal):  # a test asked for it in its middle
            yield stored
        elif asks:
            with self.redirect.to_base():
                yield stored
        elif strict or isinstance(base, Refusal):
            with self.redirect.to(Refusal(lambda: by_a_fixture(what))):
                yield stored
        else:
            with stored.noticed():
                yield stored

    def held(self) -> dict[Database, int]:
        """Return how many connections of each database are out."""
        return {database: held_by(database) for database in self.redirect.databases}

    def refuse_leaks(self, before: dict[Database, int]) -> None:
        """Raise when more connections are out than before."""
        refuse_leaks((one, before.get(one, 0)) for one in self.redirect.databases)

    def close(self) -> None:
        """End what this process has of the run."""
        self._disconnect()
        self.redirect.remove()
        if self._home is not None:
            self._home.close()
        self.owner.stop()
