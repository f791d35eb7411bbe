# make demo: set up and run the main job. make test: set up and run the tests.
# Files go to the processes in order; tests/conftest.py has the long ones first.
# make lint: static checks. make coverage: the tests with the share of lines that they run.
# make docs: the documentation, docs/_build/html/index.html; warnings are errors. make pictures: its committed figures.
# make wheel: dist/*.whl, installed without extras in an environment of its own, .venv-wheel, and used there. Torch, most
# of what is installed, is linked from .venv.
PYTHON ?= python3
VENV ?= .venv
# Installed first, so that nothing else brings another build. README says how to choose one for CPU or CUDA.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
ONE := OMP_NUM_THREADS=1
PYTEST := $(ONE) $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test coverage lint docs pictures wheel clean

setup: $(READY)

# Dependency groups need pip 25.1 or newer; Python may bring an older one.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install $(TORCH)
	$(PIP) install --editable ".[all]" --group dev
	touch $@

demo: $(READY)
	$(BIN)/calograd demo -o demo

test: $(READY)
	$(PYTEST)

coverage: $(READY)
	$(PYTEST) --cov --cov-report=term

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.docs: $(READY)
	$(PIP) install --group docs
	touch $@

docs: $(VENV)/.docs
	$(ONE) $(BIN)/python -m sphinx --fail-on-warning --keep-going --builder html docs docs/_build/html

pictures: $(READY)
	$(ONE) $(BIN)/python docs/pictures.py

wheel: $(READY)
	rm -rf dist $(VENV)-wheel
	$(BIN)/python -m build --wheel --no-isolation --outdir dist
	$(PYTHON) -m venv $(VENV)-wheel
	cd $(VENV)/lib/python*/site-packages && cp -al torch torch-*.dist-info torchgen functorch $(abspath $(VENV)-wheel)/lib/python*/site-packages
	$(VENV)-wheel/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	cd $(VENV)-wheel && bin/calograd --version && bin/calograd sample pbf2-cells --cell 2.5 6 --energy 50 -n 20 --seed 0 -o one.h5 \
	  && bin/calograd sample pbf2-cells --cell 2.5 6 --energy 50 -n 20 --seed 1 -o two.h5 \
	  && bin/calograd evaluate one.h5 two.h5 --no-classifier --json evaluation.json

clean:
	rm -rf $(VENV) $(VENV)-wheel dist demo docs/_build docs/gallery docs/notebooks docs/reference/made
