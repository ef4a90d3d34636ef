# Everything a person or CI types. Needs Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# What users call and get back passes the strictest type checks.
PUBLIC := src/farvox/__init__.py src/farvox/*/api.py src/farvox/*/schema.py src/farvox/data/dataset.py \
	src/farvox/data/checks.py src/farvox/data/readers/__init__.py src/farvox/prediction/predictor.py src/farvox/runs/run.py \
	src/farvox/models/registry.py src/farvox/models/point_network.py src/farvox/losses src/farvox/progress.py src/farvox/errors.py \
	src/farvox/types.py src/farvox/labels.py

.PHONY: help setup setup-dev demo test quick check format bench mutants docs clean

help:
	@echo "make demo     train, predict, evaluate and report on generated phantoms (demo/report.html)"
	@echo "make test     the whole test suite"
	@echo "make quick    the tests that take seconds"
	@echo "make check    formatting, lint, types"
	@echo "make format   format the code"
	@echo "make docs     build the documentation (site/index.html)"
	@echo "make bench    the measurements of the documentation"
	@echo "make mutants  break lines one by one and count how many the tests notice (half an hour)"

$(VENV)/.user: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable '.[train]'
	touch $@

$(VENV)/.dev: $(VENV)/.user
	$(PIP_INSTALL) --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(VENV)/.user
	$(PIP_INSTALL) --editable '.[docs]'
	touch $@

setup: $(VENV)/.user
setup-dev: $(VENV)/.dev

demo: setup
	$(BIN)/farvox demo --out demo

# A worker a core, each with one thread of torch: tests are many and small.
test: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist worksteal

quick: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist worksteal -m "not long"

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent $(PUBLIC)

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup-dev
	$(BIN)/python benchmarks/sparse_sampling.py
	$(BIN)/python benchmarks/predict_memory.py
	$(BIN)/python benchmarks/point_training.py
	$(BIN)/python benchmarks/points.py
	$(BIN)/python benchmarks/landmarks.py

mutants: setup-dev
	$(BIN)/python -m tests.mutants --count 120 --seed 0

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:
	rm -rf $(VENV) demo site .pytest_cache .mypy_cache .ruff_cache .hypothesis
