# The entrances. `make help` lists them; each says what it does before it takes long.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 1000
BENCHES ?= overhead detection departures arrivals gossip_cost inference
MODELS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/astromesh/models

.DEFAULT_GOAL := help
.PHONY: help demo check test proof mutants sim bench wheel clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-9s %s\n", $$1, $$2}'

demo: $(VENV)/any-engine $(VENV)/smollm2  ## three nodes on this machine answer what only one of them can, and their agents work together
	@$(BIN)/astromesh-node up --demo --models $(MODELS)

check: $(VENV)/installed  ## format, lint, types, contracts, fast tests; no engine, under 5 minutes
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not engine and not processes and not interop"

test: check $(VENV)/engine $(VENV)/prebuilt $(VENV)/smollm2  ## all of it with the real engine and real processes, a sample of every slow suite
	@installers/prerequisites serf nftables strace
	$(BIN)/pytest -q -m "engine or processes or interop"

proof: $(VENV)/engine $(VENV)/prebuilt $(VENV)/smollm2  ## everything at full length; writes docs/proof/*.json
	$(BIN)/python -m tests.proof

mutants: $(VENV)/installed  ## breaks the code by name; each break must turn its test red
	$(BIN)/python tests/mutants/run.py

sim: $(VENV)/installed  ## SEEDS=1000 simulated meshes in every weather, and a fifth as many of the fast profile; under 5 minutes
	$(BIN)/python -m maia.sim --campaign $(SEEDS)

bench: $(VENV)/engine $(VENV)/prebuilt $(VENV)/smollm2  ## what a node costs beside a bare proxy, the mesh beside serf, and models beside llama.cpp; half an hour
	@installers/prerequisites serf nftables
	@missed=; for bench in $(BENCHES); do echo "--- bench: $$bench"; $(BIN)/python -m tests.bench.$$bench || missed="$$missed $$bench"; done; \
	test -z "$$missed" || { echo "goals missed in:$$missed"; exit 1; }

wheel: $(VENV)/installed  ## dist/*.whl, built from the sdist
	$(BIN)/python -m build --outdir dist

clean:  ## removes what was built here; the engine's wheel and the models stay in the cache
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/installed: pyproject.toml
	@installers/prerequisites python3-venv
	@echo "environment: installing the node and its development tools into $(VENV) (about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'
	@$(BIN)/pip install -qq --group dev -e .
	@touch $@

$(VENV)/engine: node/astromesh/inference/engines.py $(VENV)/installed
	@installers/prerequisites g++
	@$(BIN)/astromesh-node engine install --cpu
	@touch $@

# For whoever wants to see something: the compiled engine where it is in the cache already, else the prebuilt one, in seconds.
$(VENV)/any-engine: $(VENV)/installed
	@if test -e $(VENV)/engine || $(BIN)/astromesh-node engine install --cpu --cached --dry-run >/dev/null 2>&1; \
	then $(MAKE) --no-print-directory $(VENV)/engine; else $(MAKE) --no-print-directory $(VENV)/prebuilt; fi
	@touch $@

$(VENV)/prebuilt: $(VENV)/installed
	@echo "engine: installing the prebuilt one (30 MB); 'make test' compiles one for this machine, which does more and is faster"
	@$(BIN)/pip install -qq -e '.[local-prebuilt]'
	@touch $@

$(VENV)/smollm2: $(VENV)/installed
	@$(BIN)/astromesh-node models pull smollm2 --models $(MODELS)
	@touch $@
