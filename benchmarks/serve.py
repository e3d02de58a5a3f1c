"""Serves the contender that the environment names; run by `make bench` under uvicorn."""

from __future__ import annotations

import os

from benchmarks.contenders import create

app = create(os.environ["BENCH_CONTENDER"], os.environ["BENCH_URL"])
