# demo, test, check, docs and fuzz each work on a fresh machine: they make the virtual environment they need.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
DEVELOPED = $(VENV)/.developed
DOCUMENTED = $(VENV)/.documented
MINUTES ?= 30
SEED ?= 0

.PHONY: demo test check docs bench fuzz mutants tutorials clean

demo: $(INSTALLED)
	$(BIN)/dmps demo --output demo --overwrite

test: $(DEVELOPED)
	$(BIN)/python -m pytest --numprocesses auto --cov --cov-report=
	@echo "lines of src that the tests reach in their own processes: $$($(BIN)/coverage report --format=total) %"

check: $(DEVELOPED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/reference.py --check

# The site, in site/; the pages of docs/reference are written anew first.
docs: $(DOCUMENTED)
	$(BIN)/python benchmarks/reference.py
	$(BIN)/mkdocs build --strict

# What it finds goes to fuzz-findings/; the same SEED makes the same inputs.
fuzz: $(DEVELOPED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --minutes $(MINUTES) --seed $(SEED)

# The commands of the tutorials and of docs/examples, in full: some minutes; writes outputs and pictures of the pages anew.
tutorials: $(INSTALLED)
	rm -rf tutorials
	sed -n '/^```sh/,/^```/p' docs/examples/README.md | grep -v '^```' | PATH="$(CURDIR)/$(BIN):$$PATH" bash -e
	$(BIN)/python benchmarks/tutorials.py tutorials/pages

# Breaks every sign, factor and comparison of the heart, one at a time; MODULES="levels methods/dmps" for some of it.
mutants: $(DEVELOPED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants $(MODULES)

bench: $(DEVELOPED)
	$(BIN)/python benchmarks/bench.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(DEVELOPED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(DOCUMENTED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist demo site tutorials
