# Everything one does in this repository. `make` alone lists the targets.
#
# Needs make and a Python >= 3.11 with its venv module; everything else is fetched into .venv and the user's cache.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help prepare up down status logs reset test unit bench bench-fairness bench-scale bench-peers chaos crash scenarios simulate check format generate verify lock jars clean

PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	if command -v $$name >/dev/null && $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	command -v $$name; break; fi; done)
# The one tool that isn't in the lock: it installs what is.
UV_VERSION := 0.13.9

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PROJECTS := shared services/ingest services/worker services/notifier services/retry-scheduler deploy/local
# Arguments for `barnabas up` and pytest: make up ARGS="--port 0", make test ARGS="-k backoff".
ARGS ?=

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: $(READY)  ## start Kafka, Postgres and the services, and show where (ARGS="--detach --port 0 --workers 2")
	@$(BIN)/barnabas up $(ARGS)

down: $(READY)  ## stop all of it; data is kept
	@$(BIN)/barnabas down

status: $(READY)  ## show what runs
	@$(BIN)/barnabas status

logs: $(READY)  ## follow the logs
	@$(BIN)/barnabas logs --follow

reset: $(READY)  ## stop everything and throw the data away
	@$(BIN)/barnabas reset

test: check jars verify  ## check, verify, then every test on real servers (ARGS="-k backoff")
	$(BIN)/python -m pytest $(ARGS)

unit: $(READY)  ## the tests that need no server
	$(BIN)/python -m pytest tests/unit $(ARGS)

bench: $(READY) jars  ## measure a whole system of its own, into docs/benchmarks.md (ARGS="--quick", ARGS="--compare")
	$(BIN)/python -m tests.bench $(ARGS)

bench-fairness: $(READY) jars  ## measure fairness and limits, about fifteen minutes (ARGS="--only flood", ARGS="--starts 1000000")
	$(BIN)/python -m tests.bench fairness $(ARGS)

bench-scale: $(READY) jars  ## the same work beside 10 thousand to 5 million rows, about six minutes (ARGS="--rows 10000,1000000")
	$(BIN)/python -m tests.bench scale $(ARGS)

bench-peers: $(READY)  ## run beside other engines: PEERS=directory of the peers' harness (ARGS="--only barnabas,procrastinate")
	@test -n "$(PEERS)" || { echo "Say where the harness is: make bench-peers PEERS=path/to/peers" >&2; exit 1; }
	$(BIN)/python $(PEERS)/run.py --peers $(abspath tests/bench/peers/barnabas) --out .barnabas/bench/peers $(ARGS)
	$(BIN)/python -m tests.bench.peers_page .barnabas/bench/peers/results.json

chaos: $(READY) jars  ## break everything by chance for ten minutes, and judge (ARGS="--seed 7 --seconds 60 --jobs 5000")
	$(BIN)/python -m tests.chaos $(ARGS)

crash: $(READY) jars  ## kill the services at every named crash point, some 40 minutes (ARGS="--times 5 --points ingest.after_commit")
	$(BIN)/python -m tests.chaos.crash --times 50 $(ARGS)

scenarios: $(READY) jars  ## single faults on whole systems, short forms (figures: python -m tests.chaos.scenarios all --full)
	CHAOS_SCENARIOS=1 $(BIN)/python -m pytest tests/chaos/scenarios $(ARGS)

simulate: $(READY)  ## ten thousand seeds of the simulator, under ten minutes on two cores (ARGS="--seed 7")
	$(BIN)/python -m tests.simulator --seeds 10000 --jobs 2 $(ARGS)

check: $(READY)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(foreach project,$(PROJECTS),$(project)/src) tests

format: $(READY)  ## format, and repair what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: $(READY)  ## write what is generated from the source
	$(BIN)/python -m barnabas.generate

verify: $(READY)  ## fail where a generated file isn't current
	$(BIN)/python -m barnabas.generate --check

lock: $(READY)  ## compile requirements.lock anew from the pyproject.toml files
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-emit-index-url --no-emit-find-links --group pyproject.toml:dev \
		$(foreach project,$(PROJECTS),--no-emit-package $(if $(filter shared,$(project)),barnabas,barnabas-$(notdir $(project)))) \
		-o requirements.lock $(foreach project,$(PROJECTS),$(project)/pyproject.toml)

jars: $(READY)  ## fetch Kafka's jars, so that no test waits for a download
	@$(BIN)/python -c 'from barnabas_local.jars import verified_jars; verified_jars()'

prepare: $(READY)  ## make .venv and install everything into it

clean:  ## remove .venv and caches; data in .barnabas stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis

$(READY): requirements.lock pyproject.toml $(foreach project,$(PROJECTS),$(project)/pyproject.toml)
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 or newer was found on the PATH. Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is too old: 3.11 or newer is needed." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) comes without venv or ensurepip. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@# uv does not read pip's configuration: the index and the certificates that a machine has set for pip are meant for it too.
	@pip_setting() { $(BIN)/python -m pip config list | sed -n "s/^\(global\|:env:\)\.$$1='\(.*\)'$$/\2/p" | tail -n 1; }; \
	index=$${UV_DEFAULT_INDEX:-$$(pip_setting index-url)}; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	certificates=$${SSL_CERT_FILE:-$$(pip_setting cert)}; \
	if [ -n "$$certificates" ]; then export SSL_CERT_FILE="$$certificates"; fi; \
	export VIRTUAL_ENV=$(abspath $(VENV)); \
	echo "installing what requirements.lock names"; \
	$(BIN)/uv pip install --quiet --require-hashes -r requirements.lock; \
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation $(foreach project,$(PROJECTS),-e ./$(project))
	@touch $@
