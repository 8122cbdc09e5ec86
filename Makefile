# The environment holds the package in editable form; constraints.txt pins what it was tested with.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: demo test soak bench study screenshots lint clean

demo: $(VENV)/installed
	mkdir -p data/runs
	$(BIN)/feature-lens demo --out data/runs/digits.h5 --overwrite

test: $(VENV)/tested lint
	$(BIN)/python -m pytest

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: $(VENV)/tested
	$(BIN)/python -m pytest tests/soak -n 0 --timeout 1800

bench: $(VENV)/tested
	$(BIN)/python -m pytest tests/benchmarks -n 0 --timeout 1800 -s -q

study: $(VENV)/tested
	$(BIN)/feature-lens study all --out data/runs/studies

screenshots: $(VENV)/tested
	$(BIN)/python tests/screenshots.py

$(VENV)/installed: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) .bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
