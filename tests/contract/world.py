"""The PostgreSQL server of the contract, and what can be broken on the way to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.contract.apps import tables
from tests.support.pgbouncer import PgBouncer
from tests.support.relay import Relay

if TYPE_CHECKING:
    from tests.support.cluster import PostgresCluster
    from tests.support.postgres import PostgresServer


def through() -> str:
    """What stands between the applications and PostgreSQL in this run.

    Nothing, "pgbouncer", or "replica": read sessions use a standby.
    """
    return os.environ.get("CONTRACT_THROUGH", "")


class World:
    """A PostgreSQL server of this process, perhaps a PgBouncer or a standby, and a relay."""

    def __init__(self, postgres: PostgresServer, cluster: PostgresCluster | None = None) -> None:
        self.postgres = postgres
        self.cluster = cluster
        self.direct_url = postgres.create_database("contract")
        postgres.psql(tables.POSTGRESQL, "contract")
        self.bouncer: PgBouncer | None = None
        if through() == "pgbouncer":
            self.bouncer = PgBouncer(
                postgres.folder.with_name(f"{postgres.folder.name}-pgbouncer"),
                self.direct_url,
                pool_size=20,
                tracking=bool(os.environ.get("CONTRACT_TRACKING")),
            )
            self.bouncer.start()
        self._before_url = self.bouncer.url if self.bouncer else self.direct_url
        self.relay = Relay.to(self._before_url)

    @property
    def url(self) -> str:
        """The database behind the relay."""
        return self.relay.url(self._before_url)

    @property
    def read_url(self) -> str | None:
        """The standby, when there is one; not behind the relay."""
        return self.cluster.standbys[0].url("contract") if self.cluster else None

    def repair(self) -> None:
        """End every fault."""
        if self.postgres.running:
            self.postgres.thaw()
        self.postgres.start()
        self.relay.restore()

    def close(self) -> None:
        """End what stands before the server."""
        if self.bouncer:
            self.bouncer.kill()
