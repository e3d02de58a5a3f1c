"""A Patroni cluster on loopback for the tests: a real etcd, and as many Patronis as wanted.

Patroni starts, promotes and rejoins the PostgreSQL servers; the tests only ask and kill.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx
import psutil

from tests.support.binaries import NEWEST, Installation, Version, server_identity
from tests.support.postgres import HOST, PASSWORD, SUPERUSER, RemoteServer, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 60.0
"""For which any change of the cluster is waited for."""

#: Shorter than anyone's in production, by as much as the tests' patience is.
_TIMES = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}


class PatroniNode(RemoteServer):
    """One Patroni with its PostgreSQL server."""

    def __init__(self, name: str, folder: Path, version: Version) -> None:
        super().__init__(HOST, free_port(), user=SUPERUSER, password=PASSWORD, version=version)
        self.name = name
        self.folder = folder
        self.api = f"{HOST}:{free_port()}"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def leads(self) -> bool:
        """Whether it says that it is the primary."""
        try:
            return httpx.get(f"http://{self.api}/primary", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """Ends it and its PostgreSQL server by SIGKILL, as a machine that loses its power."""
        assert self.process is not None
        family = [psutil.Process(self.process.pid)]
        family += family[0].children(recursive=True)
        # Patroni starts the postmaster apart from itself.
        file = self.folder / "data" / "postmaster.pid"
        if file.exists():
            postmaster = psutil.Process(int(file.read_text().split("\n", 1)[0]))
            family += [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(10)


class PatroniCluster:
    """Several nodes and their etcd; for `with`."""

    def __init__(self, folder: Path, *, nodes: int = 2, version: Version = NEWEST) -> None:
        """Prepares a cluster with synchronous replication.

        Args:
            folder: Where everybody may look, for the data; each node has a folder of its own there.
            nodes: How many.
            version: Of PostgreSQL.
        """
        self.folder = folder
        self.nodes = [
            PatroniNode(f"node{n}", folder / f"patroni{n}", version) for n in range(nodes)
        ]
        self._version = version
        self._etcd: subprocess.Popen[bytes] | None = None
        self._client = f"{HOST}:{free_port()}"

    def __enter__(self) -> Self:
        try:
            self._start_etcd()
            for node in self.nodes:
                self.start(node)
                # The first one is to make the database, the others copy it.
                self.until(lambda: self.leader() is not None, "a leader")
            self.settle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait(10)
        for node in self.nodes:
            shutil.rmtree(node.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """The URL with all hosts."""
        address = ",".join(f"{HOST}:{node.port}" for node in self.nodes)
        return f"postgresql://{SUPERUSER}:{quote(PASSWORD, safe='')}@{address}/{database}"

    def leader(self) -> PatroniNode | None:
        """Who leads now."""
        return next((node for node in self.nodes if node.leads), None)

    def start(self, node: PatroniNode) -> None:
        """Starts a node's Patroni, which starts or makes its PostgreSQL server."""
        file = node.folder / "patroni.yml"
        if not file.exists():
            node.folder.mkdir()
            file.write_text(json.dumps(self._configuration(node)))
            if identity := server_identity():
                os.chown(node.folder, identity["user"], identity["group"])
        with (node.folder / "patroni.log").open("ab") as log:
            node.process = subprocess.Popen(
                [*_as_servers_user(), sys.executable, "-m", "patroni", str(file)],
                cwd="/",
                env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def settle(self) -> None:
        """Waits for a leader with a synchronous standby."""
        self.until(lambda: self._members().count("sync_standby") == 1, "a synchronous standby")

    def switch_over(self) -> PatroniNode:
        """Has another node lead; returns it."""
        old = self.leader()
        assert old is not None
        answer = httpx.post(
            f"http://{old.api}/switchover", json={"leader": old.name}, timeout=SECONDS
        )
        assert answer.status_code == 200, answer.text
        return self.await_other(old)

    def await_other(self, old: PatroniNode) -> PatroniNode:
        """Waits for another leader."""
        found: list[PatroniNode] = []

        def another() -> bool:
            found[:] = [node for node in self.nodes if node is not old and node.leads]
            return bool(found)

        self.until(another, "another leader")
        return found[0]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline:
                logs = [
                    (node.folder / "patroni.log").read_text()[-1500:]
                    for node in self.nodes
                    if node.process
                ]
                raise TimeoutError(f"no {what}:\n" + "\n---\n".join(logs))
            time.sleep(0.05)

    def _members(self) -> list[str]:
        leader = self.leader()
        if leader is None:
            return []
        members = httpx.get(f"http://{leader.api}/cluster", timeout=5).json()["members"]
        return [member["role"] for member in members if member["state"] in {"running", "streaming"}]

    def _start_etcd(self) -> None:
        program = shutil.which("etcd")
        assert program, "apt-get install -y --no-install-recommends etcd-server"
        peer = f"http://{HOST}:{free_port()}"
        client = f"http://{self._client}"
        data = self.folder / "etcd"
        with (self.folder / "etcd.log").open("ab") as log:
            self._etcd = subprocess.Popen(
                [
                    program,
                    *("--data-dir", str(data), "--unsafe-no-fsync"),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", f"default={peer}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def answers() -> bool:
            try:
                return httpx.get(f"{client}/health", timeout=1).status_code == 200
            except httpx.HTTPError:
                return False

        self.until(answers, "etcd")

    def _configuration(self, node: PatroniNode) -> dict[str, Any]:
        programs = Installation(self.folder, self._version).programs
        login = {"username": SUPERUSER, "password": PASSWORD}
        hosts = f"host all all {HOST}/32 scram-sha-256"
        return {
            "scope": "papers",
            "name": node.name,
            "restapi": {"listen": node.api, "connect_address": node.api},
            "etcd3": {"hosts": self._client},
            "bootstrap": {
                "dcs": {
                    **_TIMES,
                    "synchronous_mode": True,
                    "maximum_lag_on_failover": 1048576,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "no-sync"],
            },
            "postgresql": {
                "listen": f"{HOST}:{node.port}",
                "connect_address": f"{HOST}:{node.port}",
                "data_dir": str(node.folder / "data"),
                "bin_dir": str(programs),
                "pgpass": str(node.folder / "pgpass"),
                "authentication": {"superuser": login, "replication": login, "rewind": login},
                "pg_hba": [hosts, hosts.replace("all all", "replication all")],
                "parameters": {
                    "unix_socket_directories": str(node.folder),
                    "shared_buffers": "32MB",
                    "fsync": "off",
                },
            },
        }


def _as_servers_user() -> list[str]:
    """What runs a program as the servers' user, who may yet read root's Python."""
    identity = server_identity()
    if not identity:
        return []
    return [
        "setpriv",
        *(f"--reuid={identity['user']}", f"--regid={identity['group']}", "--clear-groups"),
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
    ]
