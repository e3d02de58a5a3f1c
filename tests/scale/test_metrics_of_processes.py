"""The metrics of two worker processes, asked for by HTTP as Prometheus does."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url

from reviewpoint_db.metrics import METRICS
from tests.scale.test_processes import Serving, both, serving, until
from tests.support.postgres import free_port


def scraped(found: Serving) -> dict[tuple[str, str], float]:
    """The samples, by name and what they are told apart by."""
    answer = httpx.get(f"{found.url}/db/metrics", timeout=10)
    assert answer.status_code == 200, answer.text
    samples: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.name in {metric.full_name for metric in METRICS}
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k != "database"}
            samples[sample.name, ",".join(labels.values())] = sample.value
    return samples


def test_whichever_worker_prometheus_asks_it_gets_the_sum_of_both(
    postgres_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    with serving("uvicorn", postgres_url, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(folder)) as found:
        answers = both(found)
        served = sum(map(len, answers.values()))
        name = "reviewpoint_db_session_seconds_count", "GET /who tests.scale.processes_app.who"
        until(lambda: scraped(found).get(name) == served, "every session is counted")
        for _ in range(10):  # a new connection each: either worker answers
            samples = scraped(found)
            assert samples[name] == served
            assert samples["reviewpoint_db_connections_max", ""] == 2 * 15
            assert samples["reviewpoint_db_connections", "used"] == 0
            assert samples["reviewpoint_db_connections", "idle"] >= 2
            assert samples["reviewpoint_db_statement_seconds_count", ""] >= served


def test_the_gauges_of_a_worker_that_was_killed_go_when_the_next_one_starts(
    postgres_url: str, tmp_path: Path
) -> None:
    """Uvicorn has no hook for a worker that dies; it starts another one."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    with serving("uvicorn", postgres_url, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(folder)) as found:
        killed, living = both(found)
        os.kill(killed, signal.SIGKILL)

        def files() -> set[int]:
            return {int(file.stem.split("_")[2]) for file in folder.glob("gauge_livesum_*.db")}

        until(lambda: len(files() - {killed, living}) == 1 and killed not in files(), "it is gone")
        assert living in files()
        until(lambda: scraped(found)["reviewpoint_db_connections_max", ""] == 2 * 15, "its limit")


def test_replicas_are_told_of_by_every_worker(postgres_url: str, tmp_path: Path) -> None:
    """One is the primary itself, which counts as one that was promoted; the other does not answer."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    url = make_url(postgres_url)
    there, down = f"{url.host}:{url.port}", f"{url.host}:{free_port()}"
    more = {
        "PROMETHEUS_MULTIPROC_DIR": str(folder),
        "REVIEWPOINT_DB_READ_URL": postgres_url.replace(there, f"{there},{down}"),
    }
    with serving("uvicorn", postgres_url, tmp_path, **more) as found:
        both(found)
        up = "reviewpoint_db_replica_up"
        until(lambda: scraped(found).get((up, down)) == 0, "the one that is down is told of")
        for _ in range(10):
            samples = scraped(found)
            assert (samples[up, there], samples[up, down]) == (1, 0)
            assert samples["reviewpoint_db_connections_max", ""] == 2 * 3 * 15


def reported(folder: Path) -> dict[int, dict[str, Any]]:
    """The last figures that each process has exported, by its `service.instance.id`."""
    found: dict[int, dict[str, Any]] = {}
    for file in folder.glob("*.json"):
        *_, last, _ = ["", *file.read_text().split("\n")]  # behind the last end a line is not whole
        for of in json.loads(last)["resource_metrics"] if last else ():
            instance = of["resource"]["attributes"]["service.instance.id"]
            assert str(instance) == file.stem
            found[instance] = {
                metric["name"]: metric["data"]["data_points"]
                for scope in of["scope_metrics"]
                for metric in scope["metrics"]
            }
    return found


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn --preload"])
def test_every_worker_reports_to_opentelemetry_under_its_own_name(
    server: str, postgres_url: str, tmp_path: Path
) -> None:
    """Also where the application was imported, and used its database, before the fork."""
    folder = tmp_path / "reports"
    folder.mkdir()
    more = {"REPORTS": str(folder)}
    if "preload" in server:
        more["CONNECT_AT_IMPORT"] = "1"
    with serving(server, postgres_url, tmp_path, **more) as found:
        served = {pid: len(answers) for pid, answers in both(found).items()}

        def counted() -> dict[int, int]:
            return {
                pid: sum(
                    point["count"]
                    for point in figures.get("db.client.operation.duration", ())
                    if point["attributes"]["db.operation.name"] == "SELECT"
                )
                for pid, figures in reported(folder).items()
            }

        def enough() -> bool:
            told = counted()
            return set(told) == set(served) and all(told[pid] >= served[pid] for pid in served)

        until(enough, "both report what they have served")
        for figures in reported(folder).values():
            (limit,) = figures["db.client.connection.max"]
            assert limit["value"] == 15
