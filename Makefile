# demo, test and check each work on a fresh machine: they make the virtual environment they need.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
DEVELOPED = $(VENV)/.developed

.PHONY: demo test check bench clean

demo: $(INSTALLED)
	$(BIN)/dmps demo --output demo --overwrite

test: $(DEVELOPED)
	$(BIN)/python -m pytest

check: $(DEVELOPED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/startup.py

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

clean:
	rm -rf $(VENV) build dist demo
