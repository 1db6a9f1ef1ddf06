# The project's commands. Everything runs in .venv, made on first use.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# PyPI's torch for Linux on x86_64 is the CUDA build (several GB); +cpu asks for the other one and refuses that.
TORCH ?= torch==2.13.0$(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),+cpu)
READY := $(VENV)/.ready

.PHONY: help setup demo test test-unit check images lint bench ui lock step-digests clean
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## make .venv with every package pinned (CPU builds)

$(READY): pyproject.toml constraints.txt requirements-no-deps.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "Python 3.11 is needed (python-ace is built for it); set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet '$(TORCH)' || { \
	  echo "No CPU build of torch was found. Give pip PyTorch's CPU index (PIP_EXTRA_INDEX_URL; its address is on"; \
	  echo "PyTorch's page 'Get started', compute platform CPU), or take the CUDA build: make $(MAKECMDGOALS) TORCH=torch==2.13.0"; \
	  exit 1; }
	$(BIN)/pip install --quiet -c constraints.txt -e '.[mace,tensorpot,dask,dev]'
	$(BIN)/pip install --quiet --no-deps -r requirements-no-deps.txt
	@touch $@

demo: $(READY)  ## distil the bundled silicon example into runs/silicon/ (about 6 minutes on 2 cores)
	$(BIN)/python -m flows.distill

test: $(READY)  ## tests that need no Docker and no root, but the longest; lists the others (12 minutes on 2 cores)
	$(BIN)/python -m pytest -n 3 --durations=25 --without-engine --without-long

test-unit: $(READY)  ## the fast tests only
	$(BIN)/python -m pytest tests/unit

check: $(READY)  ## what CI runs: lint, images, every test (at most 35 minutes on 2 cores; needs a Docker engine)
	$(MAKE) --jobs 2 --output-sync=target lint images
	$(BIN)/python -m containers.versions
	$(BIN)/python -m pytest -n 3 --durations=25

images:  ## build the container images mace, tensorpot, worker (needs only a Docker engine; VARIANT=cuda for GPUs)
	@VARIANT='$(VARIANT)' BASE_IMAGE='$(BASE_IMAGE)' WHEELS='$(WHEELS)' deployments/images.sh

lint: $(READY)  ## ruff, mypy, the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## the figures the project promises, one line each (about four hours; needs the images)
	$(BIN)/python benchmarks/data/make_pools.py
	$(BIN)/python benchmarks/labelling.py
	$(BIN)/python benchmarks/label_store.py
	$(BIN)/python benchmarks/flow_cost.py
	$(BIN)/python benchmarks/whole_way.py
	$(BIN)/python benchmarks/in_containers.py
	$(BIN)/python benchmarks/ingest.py
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python benchmarks/value.py
	$(BIN)/python benchmarks/stress.py
	$(BIN)/python benchmarks/fit_cost.py
	$(BIN)/python benchmarks/time_to_target.py
	$(BIN)/python benchmarks/fidelity.py silicon
	$(BIN)/python benchmarks/fidelity.py nial

ui: $(READY)  ## Prefect server on localhost:4200 with a worker and the deployments; Ctrl-C ends all
	$(BIN)/python deployments/ui.py

lock: $(READY)  ## write constraints.txt and the images' locks from what is installed
	$(BIN)/python deployments/lock.py

step-digests: $(READY)  ## record the steps' source digests (REASON="why results are unchanged" for the same version)
	$(BIN)/python -m containers.versions record "$(REASON)"

clean:  ## remove .venv and caches; results in store/ and runs/ stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info
