# The commands of a working day. All they need is Python 3.11 or later and make.
.DEFAULT_GOAL := help
.PHONY: help setup run check test mutants lint format chaos chaos-quick bench bench-full lock audit sbom clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Install everything into .venv

# Everything comes as a wheel, with its hash: no compiler is needed, and nothing unexpected gets in.
$(READY): requirements-dev.txt pyproject.toml $(wildcard requirements-handlers.txt)
	@test -n "$(PYTHON)" || { echo "Jobhook needs Python 3.11 or later with venv (Debian: apt-get install python3-venv)."; exit 1; }
	@test -w . || { echo "This folder is read-only: Jobhook installs into $(CURDIR)/$(VENV). Copy it to where you may write."; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --quiet --only-binary :all: --require-hashes -r requirements-dev.txt || { \
		echo "Installing failed: see above. Behind a proxy, set HTTPS_PROXY; without a wheel for this platform, use docker compose up."; exit 1; }
	@$(PIP) freeze > $(VENV)/pinned.txt
	@if grep -qs '^[^#]' requirements-handlers.txt; then \
		$(PIP) install --quiet --constraint $(VENV)/pinned.txt -r requirements-handlers.txt; fi
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)

run: $(READY)  ## Start everything here: Valkey, receiver, workers; deliver a sample event. PORT=8001 for another port
	@$(BIN)/jobhook dev $(if $(PORT),--port $(PORT)) $(ARGS)

check: $(READY) lint  ## The quick loop: style, types, the order of the rooms, unit tests
	@$(BIN)/python -m pytest -q -n 2 tests/unit

test: $(READY)  ## Run the whole test suite against a real server, with coverage
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest --durations=10 $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

mutants: $(READY)  ## Break the code on purpose, in a copy, and see the tests notice; in about 10 minutes
	@$(BIN)/python -m tests.mutants $(ARGS)

lint: $(READY)  ## Check style, types and the order of the rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY)  ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

chaos: $(READY)  ## Strike a running Jobhook with every fault, and count what is lost, in about 6 minutes
	@$(BIN)/python -m tests.chaos $(ARGS)

chaos-quick: $(READY)  ## The short faults only, one of each kind, in about a minute
	@$(BIN)/python -m tests.chaos --quick

bench: $(READY)  ## Measure against the alternatives, in about 3 minutes
	@$(BIN)/python -m tests.benchmarks $(ARGS)

bench-full: $(READY)  ## The same with more rounds and a million events, in about half an hour
	@$(BIN)/python -m tests.benchmarks --full $(ARGS)

lock: $(READY)  ## Write the requirements files anew from pyproject.toml
	@$(PIP) install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --upgrade --no-annotate --no-header -q -o requirements.txt
	@$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --upgrade --no-annotate --no-header -q -o requirements-dev.txt

# In a venv of its own, so that what audits is not among what is audited. Strict: what could not be looked up
# is a failure, because "nothing found" would otherwise also be said where the database cannot be reached.
audit:  ## Look up known vulnerabilities of what production installs; needs the network
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder" \
		&& "$$folder/bin/pip" --disable-pip-version-check --no-input install --quiet --only-binary :all: pip-audit \
		&& "$$folder/bin/pip-audit" --strict --disable-pip --require-hashes -r requirements.txt \
		|| { echo "The audit has failed: a vulnerability is named above, or the database could not be asked."; exit 1; }

sbom:  ## Write sbom.json: what production installs, as CycloneDX; needs the network
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(PYTHON) -m venv "$$folder" \
		&& "$$folder/bin/pip" --disable-pip-version-check --no-input install --quiet --only-binary :all: cyclonedx-bom \
		&& "$$folder/bin/cyclonedx-py" requirements requirements.txt --pyproject pyproject.toml --output-reproducible \
			--of JSON -o sbom.json && echo "Written: sbom.json"

clean:  ## Remove what was installed and the local data
	@rm -rf $(VENV) .data .coverage .coverage.*
