# `make` alone lists the targets. Every target that needs Python makes the virtual environment first if it is missing,
# and brings it up to date when pyproject.toml or constraints.txt has changed.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PACKAGES := .
BIN := $(VENV)/bin
READY := $(VENV)/.ready-for-development

# constraints.txt is made with Python 3.11, and other versions may need other releases.
constraint = $$($(BIN)/python -c 'import sys; print("constraints.txt" if sys.version_info[:2] == (3, 11) else "")')

.DEFAULT_GOAL := help
.PHONY: help up lint format test test-fast coverage spec simulate mutants bench docs screenshots constraints build clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS="$$(printf '\t')" read -r name text; \
		do printf '  %-12s %s\n' "$$name" "$$text"; done
	@echo 'More arguments for the command behind a target: make test ARGS="tests/unit -k cancel"'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml constraints.txt | $(BIN)/python
	PIP_CONSTRAINT=$(constraint) $(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@

up: $(READY) ## Run everything on this machine, until Ctrl-C.
	$(BIN)/lifecycle up $(ARGS)

lint: $(READY) ## Check style, formatting, types and import layers.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/mypy
	$(BIN)/mypy --strict examples/agent.py examples/autoscale.py examples/whole_surface.py
	$(BIN)/lint-imports --no-cache

format: $(READY) ## Format the code and mend what ruff can mend.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format $(PACKAGES)

test: $(READY) ## Run the whole test suite, in four processes.
	$(BIN)/python -m pytest $(ARGS)

test-fast: $(READY) ## Run the fast tier: no servers, less than a minute.
	$(BIN)/python -m pytest -n 0 -m "not slow" tests/unit $(ARGS)

# COVERAGE_TIER=fast measures the fast tier. The processes that tests start are measured too, except those that are killed.
coverage: COVERED = $(if $(filter fast,$(COVERAGE_TIER)),-n 0 -m "not slow" tests/unit)
coverage: $(READY) ## Measure the coverage of the whole suite; COVERAGE_TIER=fast: of the fast tier.
	$(BIN)/python -m pytest --cov --cov-report=term --cov-report=html $(COVERED) $(ARGS)

spec: $(READY) ## Explore the specification of a request's life: every state of small worlds; ARGS=--quick for a first look.
	$(BIN)/python -m tests.spec $(ARGS)

simulate: SEEDS = 10000
simulate: $(READY) ## Simulate SEEDS histories of a whole cluster with faults; ARGS="--seed N" tells one.
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

mutants: $(READY) ## Plant faults in copies of the product, and see who finds them; ARGS="--only TEXT" for some.
	$(BIN)/python -m tests.mutants $(ARGS)

bench: $(READY) ## Run the benchmarks: about twenty minutes; ARGS=--quick for a first look.
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(READY) ## Write the generated parts of docs/reference.
	$(BIN)/python -m tests.reference

screenshots: $(READY) ## Take the dashboard's pictures for docs/images; needs chromium.
	$(BIN)/python -m tests.screenshots $(ARGS)

# With Python 3.11: an environment of its own, so that nothing gets in that is only installed by chance.
constraints: ## Write constraints.txt anew, with the newest versions that pyproject.toml allows.
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "make constraints needs Python 3.11: make constraints PYTHON=python3.11")'
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	PIP_CONSTRAINT= build/constraints/bin/python -m pip install -q -e '.[dev,engines,clients]'
	sed -n '/^#/p;/^#/!q' constraints.txt > build/constraints.txt
	build/constraints/bin/python -m pip freeze --exclude-editable >> build/constraints.txt
	mv build/constraints.txt constraints.txt && rm -rf build/constraints

build: $(READY) ## Build the source distribution and the wheel into dist/.
	rm -rf dist
	$(BIN)/python -m build

clean: ## Remove the virtual environment and everything that was generated.
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
