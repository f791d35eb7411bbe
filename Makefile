# make demo: set up and run the main job. make test: set up and run the tests. make lint: static checks.
# make docs: the documentation, docs/_build/html/index.html; warnings are errors.
PYTHON ?= python3
VENV ?= .venv
# Installed first, so that nothing else pulls in another build; see README for CPU and CUDA.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test lint docs clean

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/calograd demo -o demo

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.docs: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --builder html docs docs/_build/html

clean:
	rm -rf $(VENV) demo docs/_build docs/reference/made
