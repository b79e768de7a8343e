# What people and CI call. Needs git, make, a C library, python3 (3.11 to 3.13) with venv, and a package index.
PYTHON ?= python3
# Backbones trained at once: two where there are cores for them, as half of a small job is imports; one on a GPU.
JOBS ?= $(shell if command -v nvidia-smi >/dev/null || [ "$$(getconf _NPROCESSORS_ONLN)" -lt 2 ]; then echo 1; else echo 2; fi)
UV_VERSION := 0.13.9
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup repro test check bench bench-gpu format lock clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(BIN)/.locked ## Make .venv from requirements.lock

$(BIN)/.locked: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	"error: %s is Python %d.%d; expected 3.11 to 3.13, as in: make $(MAKECMDGOALS) PYTHON=python3.12" % (sys.executable, *v))'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@touch $@

# Stages that run at once wait for DVC's lock, which one holds only before and after its command.
# Each keeps the threads that it has alone, as their number changes the last bits; those that wait must not spin then.
repro: setup ## Run the job in params.yaml: dvc repro, two backbones at once; JOBS=4 for four, JOBS=1 for one
ifneq ($(JOBS),1)
	dvc repro split
	python -c 'import yaml; print(*yaml.safe_load(open("params.yaml"))["backbones"], sep="\n")' \
	  | OMP_WAIT_POLICY=passive xargs -P $(JOBS) -I '{}' dvc --wait-for-lock repro --single-item 'train@{}' 'export@{}'
endif
	dvc repro

# One thread a process: two workers fill two cores, and threads that share a core mostly wait for each other.
test: setup ## Run the tests
	OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 python -m pytest -n 2 --dist loadfile

check: setup ## Check format, lint, types and the guards of the layout
	ruff format --check .
	ruff check .
	pyright
	python -m pytest -q tests/test_layout.py -k test_guard

bench: setup ## Measure all benchmarks anew into docs/benchmarks.md; BENCHMARKS='split folds' measures some
	python -m benchmarks $(BENCHMARKS)

bench-gpu: setup ## Measure profiles/cifar10-gpu.yaml, nine minutes at a time; ARGS=--rehearse tries it on a CPU
	python -m benchmarks.gpu $(ARGS)

format: setup ## Format, and mend what the linter can
	ruff format .
	ruff check --fix .

lock: setup ## Resolve pyproject.toml anew into requirements.lock
	uv pip compile --upgrade --universal --fork-strategy fewest --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --all-extras --group dev pyproject.toml --output-file requirements.lock

clean: ## Remove .venv and tool caches, never data, models or metrics
	rm -rf .venv .pytest_cache .ruff_cache
