"""The metrics of two worker processes, asked for by HTTP as Prometheus does."""

from __future__ import annotations

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from reviewpoint_db.metrics import METRICS
from tests.scale.test_processes import Serving, both, serving, until


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
