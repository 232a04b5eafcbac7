# Targets; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV) || { apt-get install -y -q $(notdir $(PYTHON))-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	touch $@

.PHONY: setup
setup: $(VENV)/.ready ## make the virtual environment

.PHONY: packages
packages: ## install the Debian packages that the tests and the demo use
	tools/install-packages test

.PHONY: demo
demo: setup ## set all up, start an engine and run real containers
	tools/install-packages demo
	PATH="$(abspath $(BIN)):$$PATH" tools/demo

.PHONY: check
check: setup ## format, lint, architecture, types
	$(BIN)/ruff check src tests bench
	$(BIN)/lint-imports
	$(BIN)/mypy

.PHONY: test
test: setup packages ## set up and pass all tests
	$(MAKE) --no-print-directory check
	VENV=$(VENV) tools/run-tests $(PYTEST_ARGS)

.PHONY: soak
soak: setup ## run containers at random for an hour while daemon and keeper are killed (SOAK_ARGS="--seconds 60")
	PYTHONPATH=src:tests $(BIN)/python tests/soak.py $(SOAK_ARGS)

.PHONY: bench
bench: setup ## time whole commands beside Docker and Podman where they are installed
	$(BIN)/python bench/run.py
