# Every target does its own set-up: the virtual environment, the cluster's binaries, the images.
# `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CACHE_HOME ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/tailwise
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := $(CACHE_HOME)/uv-$(UV_VERSION)/bin/uv
RUN := .venv/bin/python
CLUSTER ?= real
PYTEST_ARGS ?=

.PHONY: help deps demo bench-paper test test-unit fuzz check generate lock bench bench-placement cluster clean-cluster images clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(UV):
	@echo "==> uv $(UV_VERSION) (once, into $(CACHE_HOME))"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(CACHE_HOME)/uv-$(UV_VERSION)
	@$(CACHE_HOME)/uv-$(UV_VERSION)/bin/pip install --quiet uv==$(UV_VERSION)

# The stamp names the lock file's content, so that a changed lock renews the environment.
.venv/.synced: lock/dev.txt pyproject.toml | $(UV)
	@echo "==> virtual environment from lock/dev.txt"
	@test -x .venv/bin/python || $(UV) venv --quiet --no-python-downloads --python $(PYTHON) .venv
	@VIRTUAL_ENV=.venv $(UV) pip sync --quiet --require-hashes lock/dev.txt
	@VIRTUAL_ENV=.venv $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

deps: .venv/.synced ## Set up the virtual environment

# Only a KUBECONFIG given to make itself is meant: the one of the shell may be of a cluster in use.
OWN_CLUSTER = $(if $(filter command,$(origin KUBECONFIG)),--kubeconfig $(KUBECONFIG))
demo: deps ## Run the main job: a cluster, the operator, ten pods, their P90 (KUBECONFIG=... for your own cluster)
	@$(RUN) -m tests.demo $(OWN_CLUSTER) $(DEMO_ARGS)

SCENARIO ?= examples/bench/short.yaml
OUT ?= build/bench/$(basename $(notdir $(SCENARIO)))
bench-paper: deps ## The paper's experiment on real nodes, all policies, with a report (SCENARIO, OUT; goes on where it was)
	@$(RUN) -m tests.benchmark $(SCENARIO) -- --out=$(OUT) $(BENCH_ARGS)

test: deps ## All tests: unit, real control plane, simulated nodes, and real nodes where root allows
	@$(RUN) -m tests.cluster build
	@$(RUN) -m pytest $(PYTEST_ARGS)

test-unit: deps ## The tests that need no cluster
	@$(RUN) -m pytest tests/unit $(PYTEST_ARGS)

FUZZ_SECONDS ?= 600
fuzz: deps ## Fuzz the reader of models, guided by coverage, for ten minutes (FUZZ_SECONDS)
	@$(RUN) -m tests.fuzz $(FUZZ_SECONDS)

check: deps ## Lint, types, import rule, drift of generated files
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy operator tests bench
	cd examples/serving && ../../.venv/bin/mypy --config-file ../../pyproject.toml .
	.venv/bin/lint-imports
	$(RUN) -m tailwise generate --check
	$(RUN) -m pytest -q tests/unit/tilt

generate: deps ## Write crds/, the chart's copies and docs/reference from the code
	$(RUN) -m tailwise generate

# No index address is written, so that the lock holds names, versions and digests only.
LOCK = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade
lock: $(UV) ## Renew the lock files from pyproject.toml
	$(LOCK) pyproject.toml -o lock/operator.txt
	$(LOCK) pyproject.toml --extra training -o lock/training.txt -c lock/operator.txt
	$(LOCK) pyproject.toml --extra training --extra dev -o lock/dev.txt -c lock/training.txt

bench: deps ## Speed and accuracy, measured: never asserted in a test
	@$(RUN) -m bench $(BENCH_ARGS)

# A run that is broken off, or ended by BENCH_MINUTES, goes on where it was; a new one begins without the file.
BENCH_ROUNDS ?= build/bench-placement.json
bench-placement: deps ## Pods a second against kube-scheduler alone, 1,000 and 5,000 nodes, half an hour (BENCH_MINUTES)
	@$(RUN) -m bench placement --full --resume $(BENCH_ROUNDS) --report docs/placement-speed.md \
	  $(if $(BENCH_MINUTES),--minutes $(BENCH_MINUTES) --keep) $(BENCH_ARGS)

cluster: deps ## Bring a cluster up: CLUSTER=control-plane, simulated or real
	@$(RUN) -m tests.cluster up $(CLUSTER)

clean-cluster: deps ## End every cluster of the harness, also after a crash
	@$(RUN) -m tests.cluster clean

clean: ## Remove what was made in the tree
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build
