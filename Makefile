PYTHON ?= python3
ARGS ?=

bin := .venv/bin
stamp := .venv/.installed
locks := $(addprefix requirements/,run.lock llm.lock dev.lock build.lock demo.lock)
rivals := $(addprefix requirements/bench-,data7.lock datasette.lock)
pip := $(bin)/python -m pip --disable-pip-version-check --quiet
compile := $(bin)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--annotation-style line --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test faults check format bench lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(stamp) ## Make .venv from the hashed lock files (once; again when they change)

# No build isolation: dev.lock holds the build backends, so that all that runs here is hashed.
$(stamp): $(locks) pyproject.toml
	test -x $(bin)/python || $(PYTHON) -m venv .venv
	$(pip) install --require-hashes -r requirements/dev.lock
	$(pip) install --require-hashes --no-deps --no-build-isolation --use-pep517 -r requirements/demo.lock
	$(pip) install --no-deps --no-build-isolation --editable .
	touch $@

run: setup ## Serve the demo: embedded PostgreSQL, a real dataset (ARGS="--port 8080")
	$(bin)/tailrace demo --data-dir .tailrace/demo $(ARGS)

# A file at a time: what its tests share is made once.
test: setup ## Run every test (ARGS="tests/unit -k csv")
	$(bin)/pytest --numprocesses 4 --dist loadfile $(ARGS)

faults: setup ## Run the fault tests at full length
	TAILRACE_FAULTS=full $(bin)/pytest tests/faults $(ARGS)

check: setup ## Formatting, lint, types and the direction of imports
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/lint-imports --no-logo

format: setup ## Format, and mend what ruff can mend
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

bench: setup ## Measure against the baselines (ARGS=…)
	$(bin)/python -m bench $(ARGS)

lock: setup ## Write the lock files anew (ARGS=--upgrade for newer versions)
	$(compile) $(ARGS) pyproject.toml --output-file requirements/run.lock
	$(compile) $(ARGS) pyproject.toml --extra llm --constraints requirements/run.lock \
		--output-file requirements/llm.lock
	$(compile) $(ARGS) pyproject.toml --group dev --constraints requirements/run.lock \
		--output-file requirements/dev.lock
	$(compile) $(ARGS) --group build --constraints requirements/dev.lock \
		--output-file requirements/build.lock
	$(compile) $(ARGS) requirements/demo.in --no-deps --output-file requirements/demo.lock
	for lock in $(rivals); do $(compile) $(ARGS) $${lock%.lock}.in --output-file $$lock || exit 1; done
	@! grep -nE '[a-z]+://|--(extra-)?index-url|--find-links' $(locks) $(rivals) \
		|| { echo "A lock file names a host."; exit 1; }

clean: ## Remove .venv, caches and build output; the data directory stays
	rm -rf .venv build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
