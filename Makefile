# make demo: set up and run the main job. make test: set up and run the tests. make lint: static checks.
# make docs: the documentation, docs/_build/html/index.html; warnings are errors.
# make wheel: dist/*.whl, installed without extras in an environment of its own, .venv-wheel, and used there.
PYTHON ?= python3
VENV ?= .venv
# Installed first, so that nothing else pulls in another build; see README for CPU and CUDA.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test lint docs wheel clean

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/calograd demo -o demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

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

wheel: $(READY)
	rm -rf dist $(VENV)-wheel
	$(BIN)/python -m build --wheel --no-isolation --outdir dist
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/pip install --quiet --disable-pip-version-check $(TORCH)
	$(VENV)-wheel/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	cd $(VENV)-wheel && bin/calograd --version && bin/calograd sample pbf2-cells --cell 2.5 6 --energy 50 -n 20 --seed 0 -o one.h5 \
	  && bin/calograd sample pbf2-cells --cell 2.5 6 --energy 50 -n 20 --seed 1 -o two.h5 \
	  && bin/calograd evaluate one.h5 two.h5 --no-classifier --json evaluation.json

clean:
	rm -rf $(VENV) $(VENV)-wheel dist demo docs/_build docs/reference/made
