# `make PYTHON=.venv/bin/python test` for an environment that is not active.
PYTHON ?= python

.PHONY: help test test-all fuzz lint lint-js format

help:
	@echo "make test      the fast tier: under two minutes on two cores"
	@echo "make test-all  every test; needs the extra dev, Chromium, ChromeDriver, Azurite"
	@echo "make fuzz      property tests on new random examples"
	@echo "make lint      ruff, mypy, import-linter, eslint"
	@echo "make format    ruff format, and what ruff can mend"

test:
	$(PYTHON) -m pytest -q

test-all:
	$(PYTHON) -m pytest -q -m ""

fuzz:
	$(PYTHON) -m pytest -q -m hypothesis --hypothesis-profile=fuzz

lint: lint-js
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -c "from importlinter.cli import lint_imports_command; lint_imports_command()" --no-cache

lint-js: tests/report/node_modules
	npm --prefix tests/report run --silent lint

tests/report/node_modules: tests/report/package-lock.json
	npm --prefix tests/report ci --silent --no-audit --no-fund
	@touch $@

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
