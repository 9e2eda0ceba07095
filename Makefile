# Two commands for a bare machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint types bench clean

demo: .venv/.installed
	$(BIN)/pags demo

test: .venv/.installed-with-tests
	$(BIN)/python -m pytest

lint: .venv/.installed-with-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-with-tests
	$(BIN)/mypy

clean:
	rm -rf .venv pags-out

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: expected Python 3.11 or newer; got $$($(PYTHON) --version); try make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# The first installation takes PyTorch's ordinary build, several GB: about two minutes.
.venv/.installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/.installed-with-tests: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch .venv/.installed $@

# Ratios of times and peak memory, measured here; the machine must be left alone meanwhile (about ten minutes).
bench: .venv/.installed-with-tests
	$(BIN)/python -W ignore benchmarks/measures.py
	$(BIN)/python -W ignore benchmarks/tangent.py
	$(BIN)/python -W ignore benchmarks/training.py
