# Everything a newcomer runs. `make help` lists the targets.
SHELL := bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# FAISS comes as one of two packages with the same module name: never both.
EXTRA := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)
DEMO := results/demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint notebooks clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: $(VENV)/installed ## create .venv and install everything, with faiss-gpu where there is an NVIDIA GPU

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or 3.12 is needed: make setup PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch -e '.[$(EXTRA),dev]'
	@touch $@

demo: setup ## sweep the dimensions of the embedded model on the built-in set: no GPU, no download
	$(BIN)/toolkit sweep --embedder static --data builtin --dims auto --index Flat --index HNSW32 --out $(DEMO) --resume

test: setup ## run the tests
	$(BIN)/python -m pytest

lint: setup ## check style and formatting
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

notebooks: setup ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

clean: ## remove the environment and the demo's results
	rm -rf $(VENV) $(DEMO)
