"""The manifests of docs/how-to/kubernetes.md: their commands and probes, run as they are written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are one more dependency
from sqlalchemy import make_url

from tests.support.commands import output_of
from tests.support.postgres import HOST, RemoteServer, free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "kubernetes.md"
BLOCKS: list[dict[str, Any]] = [
    yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
]
MANIFESTS = {block["kind"]: block for block in BLOCKS if "kind" in block}
LITESTAR = next(block["command"] for block in BLOCKS if "command" in block)
APP = """
from litestar import Litestar
from reviewpoint_db import ReviewPointDBPlugin

app = Litestar(plugins=[ReviewPointDBPlugin()])
"""


READY = "/db/health/ready"


def pod_of(kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = MANIFESTS[kind]["spec"]["template"]["spec"]
    return spec


def environment_of(container: dict[str, Any], secret: Path) -> dict[str, str]:
    """The container's environment; its secret is mounted in the test's folder."""
    mount = container["volumeMounts"][0]["mountPath"]
    given = {one["name"]: one["value"].replace(mount, str(secret)) for one in container["env"]}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("REVIEWPOINT_")}
    path = os.pathsep.join([sysconfig.get_path("scripts"), inherited["PATH"]])
    return {**inherited, **given, "PATH": path, "PYTHONPATH": str(ROOT)}


def probe(of: dict[str, Any], port: int) -> int:
    try:
        url = f"http://{HOST}:{port}{of['httpGet']['path']}"
        return httpx.get(url, timeout=of.get("timeoutSeconds", 1)).status_code
    except httpx.TransportError:
        return 0


@pytest.fixture
def app(postgres_url: str, tmp_path: Path) -> Path:
    """The image's folder, with the secret's file."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "url").write_text(postgres_url + "\n")
    return tmp_path


def run(command: list[str], container: dict[str, Any], folder: Path) -> str:
    return output_of(command, folder, environment_of(container, folder))


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The Deployment's container, once its startup probe succeeds."""
    (container,) = pod_of("Deployment")["containers"]
    port = free_port()
    words = [sys.executable, "-m", *(word.replace("{port}", str(port)) for word in command)]
    environment = environment_of(container, folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        startup = container["startupProbe"]
        deadline = time.monotonic() + startup["periodSeconds"] * startup["failureThreshold"]
        while probe(startup, port) != 200:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield process, port
    finally:
        process.kill()
        process.wait(10)


def test_the_job_migrates_by_either_command_after_its_checks(app: Path) -> None:
    pod = pod_of("Job")
    (job,) = pod["containers"]
    ours = job["command"][:3]
    run([*ours, "init", "--no-prompt", "migrations"], job, app)
    wait, check = pod["initContainers"]
    make = [*ours, "make-migrations", "--no-prompt", "--no-autogenerate", "-m"]
    for number, upgrade in enumerate((job["command"], LITESTAR)):
        run([*make, f"number {number}"], job, app)
        run(wait["command"], wait, app)
        pending = run(check["command"], check, app)
        assert pending.startswith("RPDB006 warning: Migrations are pending"), pending
        run(upgrade, job, app)
        assert run(check["command"], check, app) == "The checks passed.\n"


def test_the_pod_does_what_the_page_says(app: Path, postgres: RemoteServer) -> None:
    (container,) = pod_of("Deployment")["containers"]
    command = [*container["command"], "--port", "{port}"]
    with started(command, app) as (process, port):
        assert probe(container["livenessProbe"], port) == 200
        assert probe(container["readinessProbe"], port) == 200
        subprocess.run(container["lifecycle"]["preStop"]["exec"]["command"], check=True)
        assert probe(container["readinessProbe"], port) == 200  # those who come late are served
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(pod_of("Deployment")["terminationGracePeriodSeconds"])
        assert time.monotonic() - began < 20


def test_a_rotated_secret_needs_no_restart(
    app: Path, postgres: RemoteServer, postgres_url: str
) -> None:
    (container,) = pod_of("Deployment")["containers"]
    url = make_url(postgres_url)
    role = f"pod_{os.getpid()}"
    secret = app / "url"

    def rotate(verb: str, password: str) -> None:
        postgres.psql(f"{verb} role {role} login superuser password '{password}'")
        new = url.set(username=role, password=password)
        secret.write_text(new.render_as_string(hide_password=False))

    rotate("create", "one")
    try:
        with started([*container["command"], "--port", "{port}"], app) as (_, port):
            rotate("alter", "two")
            postgres.psql(
                f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'"
            )
            deadline = time.monotonic() + 10
            while probe(container["readinessProbe"], port) != 200:
                assert time.monotonic() < deadline, (app / "log").read_text()
    finally:
        postgres.psql(f"drop role {role}")


SERVERS = {
    "uvicorn": [*pod_of("Deployment")["containers"][0]["command"], "--port", "{port}"],
    "gunicorn": ["gunicorn", "app:app", "--bind", HOST + ":{port}",
                 "--worker-class", "uvicorn.workers.UvicornWorker"],
}  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
def test_readiness_says_no_from_sigterm_until_nobody_answers(server: str, app: Path) -> None:
    """A server listens for a moment more: uvicorn looks for the signal ten times a second."""
    seen: list[int] = []
    for _ in range(5):  # that moment may be too short to be asked in
        with started(SERVERS[server], app) as (process, port), httpx.Client(timeout=1) as client:
            url = f"http://{HOST}:{port}{READY}"
            assert client.get(url).status_code == 200
            process.send_signal(signal.SIGTERM)
            seen = []
            with suppress(httpx.TransportError):
                while process.poll() is None:
                    answer = client.get(url)
                    seen.append(answer.status_code)
                    if seen[-1] == 503:
                        assert answer.json()["reason"] == "draining"
            process.wait(20)
        assert seen == sorted(seen)  # never yes after no
        if 503 in seen:
            return
    raise AssertionError(f"no answer while draining: {seen}")


def test_the_grace_is_longer_than_all_that_ends_in_it() -> None:
    pod = pod_of("Deployment")
    (container,) = pod["containers"]
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    graceful = int(container["command"][-1])
    # Sessions in use have 10 seconds after the requests, closing has 2.
    assert pod["terminationGracePeriodSeconds"] > sleep + graceful + 12


def test_the_expected_processes_are_the_replicas_and_one_of_an_update() -> None:
    deployment = MANIFESTS["Deployment"]["spec"]
    environment = {
        one["name"]: one["value"] for one in pod_of("Deployment")["containers"][0]["env"]
    }
    expected = int(environment["REVIEWPOINT_DB_EXPECTED_PROCESSES"])
    assert expected == deployment["replicas"] + 1
