"""The manifests of docs/how-to/kubernetes.md: their commands and probes, run as they are written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import httpx
import yaml  # type: ignore[import-untyped]  # its stubs are one more dependency

from tests.support.postgres import HOST, RemoteServer, free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "kubernetes.md"
MANIFESTS: dict[str, Any] = {
    manifest["kind"]: manifest
    for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for manifest in [yaml.safe_load(text)]
}
APP = """
from litestar import Litestar
from reviewpoint_db import ReviewPointDBPlugin

app = Litestar(plugins=[ReviewPointDBPlugin()])
"""


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


def test_the_job_and_the_pod_do_what_the_page_says(
    postgres_url: str, postgres: RemoteServer, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "url").write_text(postgres_url + "\n")
    job = pod_of("Job")["containers"][0]
    environment = environment_of(job, tmp_path)
    init = ["reviewpoint-db", "--app", "app:app", "init", "--no-prompt", "migrations"]
    make = [*init[:3], "make-migrations", "--no-prompt", "-m", "one"]
    for command in (init, make, job["command"]):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    container = pod_of("Deployment")["containers"][0]
    port = free_port()
    command = [sys.executable, "-m", *container["command"], "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment_of(container, tmp_path), stdout=log, stderr=log
        )
    try:
        startup = container["startupProbe"]
        deadline = time.monotonic() + startup["periodSeconds"] * startup["failureThreshold"]
        while probe(startup, port) != 200:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        assert probe(container["livenessProbe"], port) == 200
        assert probe(container["readinessProbe"], port) == 200
        subprocess.run(container["lifecycle"]["preStop"]["exec"]["command"], check=True)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(pod_of("Deployment")["terminationGracePeriodSeconds"])
        assert time.monotonic() - began < 20
    finally:
        process.kill()
        process.wait(10)


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
