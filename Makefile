# What people and CI call. Needs git, make, a C library, python3 (3.11 to 3.13) with venv, and a package index.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Images of machines often set it. Every stage is a process, and compiles for ten seconds what it imports where it is set.
unexport PYTHONDONTWRITEBYTECODE

# A package that comes as source is built by the setuptools of the lock, not by the newest.
SYNC := $(BIN)/uv pip sync --quiet --require-hashes --build-constraints requirements.lock

.DEFAULT_GOAL := help
.PHONY: help setup git repro serve test test-fast test-all check bench bench-gpu format \
	lock licences sbom advisories clean

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(BIN)/.locked ## Make .venv from requirements.lock

$(BIN)/.locked: requirements.lock supply/setup.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	"error: %s is Python %d.%d; expected 3.11 to 3.13, as in: make $(MAKECMDGOALS) PYTHON=python3.12" % (sys.executable, *v))'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r supply/setup.lock
	$(SYNC) --python $(BIN)/python requirements.lock
	@touch $@

# DVC says that Git is missing, not what to do, and only once there is an environment.
git:
	@if LC_ALL=C git rev-parse 2>&1 | grep -q 'not a git repository' && ! grep -qs 'no_scm = true' .dvc/config .dvc/config.local; then \
	  echo 'error: no Git repository, as after a download as ZIP, and DVC needs one: `git init --quiet && git add --all &&' \
	  'git commit --quiet --message start`; without experiments `make setup && .venv/bin/dvc config --local core.no_scm true` will do' >&2; \
	  exit 1; \
	fi

# Stages that run at once wait for DVC's lock, which one holds only before and after its command.
repro: git setup ## Run the job in params.yaml: dvc repro, as many backbones at once as have cores for their threads, or JOBS=4
	@jobs=$${JOBS:-$$(python -m stages.executors.room)} || exit; \
	if [ "$$jobs" != 1 ]; then \
	  dvc repro split && \
	  python -c 'import yaml; print(*yaml.safe_load(open("params.yaml"))["backbones"], sep="\n")' \
	  | xargs -P "$$jobs" -I '{}' dvc --wait-for-lock repro --single-item 'train@{}' 'export@{}' 'refit@{}' && \
	  dvc repro evaluate && \
	  printf '%s\n' bundle audit report | xargs -P "$$jobs" -I '{}' dvc --wait-for-lock repro --single-item '{}'; \
	fi
	dvc repro

serve: setup ## Answer for new images over HTTP with models/bundle; ARGS="--port 9000", docs/deploy.md
	python -m serving.server $(ARGS)

# Frameworks fight over memory, threads and the order of imports, so that each group of test files (tests/groups.py) has
# a process of its own, and so many run at once. The longest come first. `make test-keras` runs one.
GROUPS := dvc pytorch contract keras plain flax
WORKERS ?= 2
TESTS ?= -m "not exhaustive"

test: setup ## Run the tests, WORKERS=2 groups of them at a time
	@$(MAKE) --no-print-directory --keep-going --jobs $(WORKERS) $(GROUPS:%=test-%)

test-fast: setup ## Run the tests that need neither a framework nor DVC, a minute
	python -m pytest --group plain $(TESTS) --numprocesses $(WORKERS) --dist loadfile

test-all: setup ## Run those too that are marked exhaustive, an hour: before a release
	@$(MAKE) --no-print-directory --keep-going --jobs $(WORKERS) TESTS=--hypothesis-profile=thorough $(GROUPS:%=test-%)

test-%: SHELL := bash
test-%: setup
	@set -o pipefail; python -m pytest --group $* $(TESTS) 2>&1 | sed -u 's/^/$*: /'

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

COMPILE := uv pip compile --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

lock: setup ## Resolve pyproject.toml anew into requirements.lock and the other locks: what serves, what checks, uv
	$(COMPILE) --upgrade --all-extras --group dev --group batch --group serving pyproject.toml --output-file requirements.lock
	$(COMPILE) --upgrade --constraint requirements.lock --group serving --output-file serving/requirements.lock
	$(COMPILE) --upgrade --group supply --output-file supply/requirements.lock
	$(COMPILE) --upgrade --group setup --output-file supply/setup.lock

# Environments of their own: that of the image, and that of the tools, whose packages nothing here is to import.
.venv/%/.locked: %/requirements.lock $(BIN)/.locked
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/$*
	$(SYNC) --python .venv/$*/bin/python $<
	@touch $@

licences: .venv/supply/.locked ## Write docs/licences.md anew, after make lock
	.venv/supply/bin/pip-licenses --python $(BIN)/python --with-system --from all --with-license-file --no-license-path \
	  --format json | python -m supply.licences

CYCLONEDX := .venv/supply/bin/cyclonedx-py environment --validate --pyproject pyproject.toml

sbom: .venv/supply/.locked .venv/serving/.locked ## Write sbom/, CycloneDX documents of what trains and of what serves
	mkdir -p sbom
	$(CYCLONEDX) --output-file sbom/foldstack.cdx.json .venv
	$(CYCLONEDX) --output-file sbom/serving.cdx.json .venv/serving

# What pip-audit prints as a table are findings. Where it prints none and fails, it has not looked everything up.
advisories: .venv/supply/.locked ## Ask PyPI which locked packages have advisories; ARGS='-s osv' asks OSV
	@for lock in requirements.lock supply/requirements.lock supply/setup.lock; do \
	  found=$$(.venv/supply/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r $$lock $(ARGS) \
	    2> .venv/advisories.log) && echo "$$lock: no known advisories" || { \
	    echo "$${found:-error: $$lock is not audited: $$(tail -n 1 .venv/advisories.log)}" >&2; exit 1; }; \
	done

clean: ## Remove .venv and tool caches, never data, models or metrics
	rm -rf .venv .pytest_cache .ruff_cache
