# Two commands for a bare machine with Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint types docs dist results bench clean

demo: .venv/.installed
	$(BIN)/pags demo

# One process with one thread for each core: that is faster than threads, and one file's tests share what they make.
test: .venv/.installed-with-tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

lint: .venv/.installed-with-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-with-tests
	$(BIN)/mypy

# The site in site/, with warnings as errors; it needs no network to be read.
docs: .venv/.installed-with-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The wheel and the source archive in dist/.
dist: .venv/.installed-with-docs
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# Every study in results/ drawn again from its records, and the tables of the texts filled.
results: .venv/.installed
	$(BIN)/python scripts/results.py

clean:
	rm -rf .venv pags-out site dist

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

.venv/.installed-with-docs: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' build twine
	@touch $@

# Ratios of times and peak memory, measured here; the machine must be left alone meanwhile (about ten minutes).
bench: .venv/.installed-with-tests
	$(BIN)/python -W ignore benchmarks/measures.py
	$(BIN)/python -W ignore benchmarks/tangent.py
	$(BIN)/python -W ignore benchmarks/training.py
