# `make run` and `make test` set up all they need in .venv, with Python >= 3.11 and nothing else.
# Variables: PYTHON (which one makes the venv), PORT (of `make run`), TESTS and PYTEST_ARGS
# (`make test TESTS=tests/test_config.py PYTEST_ARGS=-x`), WORKERS (processes of the test run).
# SCALE is what `make test` leaves to `make test-scale`; `make coverage` runs both.

PYTHON ?= python3
PORT ?= 8000
TESTS ?= tests
SCALE := tests/scale
# Tests wait for servers more than they compute: one more than there are cores, and no more than 8.
WORKERS ?= $(shell python3 -c 'import os; print(min(8, (os.cpu_count() or 1) + 1))' 2>/dev/null || echo 2)
PYTEST_ARGS ?=
# What `make test-lowest` need not repeat: it tests the page, the tests' own tools, the benchmarks and memory.
OF_NO_VERSION := --ignore=tests/browser --ignore-glob='tests/test_support*' --ignore=tests/test_benchmarks.py \
	--ignore=tests/test_activity_memory.py

# A venv that happens to be active, or a PYTHONPATH, must not leak in.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# mkdocs-material announces its successor at every build.
export NO_MKDOCS_2_WARNING = 1

VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
# What is there of what may be checked.
CODE := $(wildcard reviewpoint_db reviewpoint_db_pytest example_app tests benchmarks tools)

.DEFAULT_GOAL := help
.PHONY: help run browser openssl servers test test-scale test-lowest check format coverage bench mutants wheel constraints docs clean

help: ## Say what each target does.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# pip gets the build's own requirements from the same constraints: no build isolation.
define install # venv, constraints, groups
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11: make PYTHON=python3.11 $@"; exit 1; }
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --constraint $(2) pip hatchling editables setuptools
	$(1)/bin/python -m pip install --quiet --constraint $(2) --no-build-isolation \
		--editable . $(3)
	touch $@
endef

$(VENV)/.run: pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,--group run)

$(VENV)/.dev: pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,--group dev)
	touch $(VENV)/.run

$(LOWEST)/.test: pyproject.toml constraints-lowest.txt
	$(call install,$(LOWEST),constraints-lowest.txt,--group lowest)

run: $(VENV)/.run ## Serve the example application on http://127.0.0.1:8000.
	@echo
	@echo "  the example        http://127.0.0.1:$(PORT)/"
	@echo "  its API            http://127.0.0.1:$(PORT)/schema"
	@echo "  health             http://127.0.0.1:$(PORT)/db/health"
	@echo "  the live page      http://127.0.0.1:$(PORT)/db/"
	@echo "  debug              http://127.0.0.1:$(PORT)/db/debug"
	@echo
	$(BIN)/python -m uvicorn example_app.app:app --host 127.0.0.1 --port $(PORT)

# Debian's packages, installed for root where a program of theirs is missing; else it is said what needs
# them, and its tests fail.
define debian # programs, packages, what needs them
	@PATH="$$PATH:/usr/sbin"; missing=; \
	for program in $(1); do command -v $$program >/dev/null || missing=yes; done; \
	test -n "$$missing" || exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		test -e $(CLUSTERS) || { mkdir -p $(dir $(CLUSTERS)); echo 'create_main_cluster = false' > $(CLUSTERS); }; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends $(2); \
	else \
		echo "$(3) needs them: apt-get install -y $(2)"; \
	fi
endef

browser:
	$(call debian,chromium chromedriver,chromium chromium-driver,tests/browser)

openssl:
	$(call debian,openssl,openssl,tests/test_tls.py)

# The package postgresql would make a server of the machine's own, and start it.
CLUSTERS := /etc/postgresql-common/createcluster.conf
servers: $(VENV)/.dev
	$(call debian,pgbouncer etcd pg_ctlcluster ip,pgbouncer etcd-server postgresql iproute2,tests/scale)
	-$(BIN)/python -m tests.support.newer_pgbouncer

test: $(VENV)/.dev browser openssl ## Run the tests, on SQLite and on PostgreSQL servers of their own.
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --ignore=$(SCALE) $(PYTEST_ARGS) $(TESTS)
	@echo "Left out: $(SCALE) (replicas, failover, PgBouncer, several processes): make test-scale"

test-scale: $(VENV)/.dev servers ## Run the tests with replicas, failover, PgBouncer and several processes.
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS) $(SCALE)

test-lowest: $(LOWEST)/.test openssl ## Run the tests on the lowest versions that pyproject.toml allows.
	$(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -o cache_dir=$(LOWEST)/.pytest_cache \
		--ignore=$(SCALE) $(OF_NO_VERSION) $(PYTEST_ARGS) $(TESTS)

check: $(VENV)/.dev ## Lint, format, types, import contract, documentation.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --quiet

format: $(VENV)/.dev ## Let ruff format the code and fix what it can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(VENV)/.dev browser openssl servers ## Run all tests and demand 100% branch coverage of the package.
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS) $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: $(VENV)/.dev ## Measure against the alternatives, side by side.
	$(BIN)/python -m benchmarks

mutants: $(VENV)/.dev ## Remove each protection in turn, and expect the tests to notice.
	$(BIN)/python -m tests.mutants

wheel: $(VENV)/.dev ## Build the wheel into dist/.
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

constraints: ## Renew constraints.txt with the newest versions that pyproject.toml allows.
	rm -rf build/newest && $(PYTHON) -m venv build/newest
	build/newest/bin/python -m pip install --quiet --upgrade pip hatchling editables setuptools
	build/newest/bin/python -m pip install --quiet --no-build-isolation --editable . --group dev
	build/newest/bin/python -m pip list --format=freeze \
		--exclude reviewpoint-db | sort -f > constraints.txt

docs: $(VENV)/.dev ## Serve the documentation while it is being written.
	$(BIN)/mkdocs serve

clean: ## Remove what the other targets made.
	rm -rf $(VENV) $(LOWEST) build dist site htmlcov .coverage .coverage.* \
		.mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
