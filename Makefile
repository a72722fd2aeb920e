# Everything a newcomer, a developer and CI run. `make help` lists it.
#
# Wants Python 3.11, git, make and a package index; everything else is installed into .venv.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# torch comes first and alone: asked for together with other packages, pip may choose a build with
# gigabytes of GPU libraries. Set TORCH to the requirement (and flags) of the build you want.
TORCH ?= torch==2.13.0
JSON ?=
PEERS ?=
ARGS ?=
SECONDS ?= 60
SEED ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo up down test e2e check gen bench parity chaos cache kubectl-parity docs-test crash results clean

help:  ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## Create .venv with all dependencies

$(VENV)/.ready: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on the PATH: install Python 3.11, or say make PYTHON=…"; exit 1; }
	@echo "Setting up $(VENV) (torch first; some minutes the first time) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@{ $(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet $(TORCH); } \
	  && $(BIN)/pip install --quiet --editable '.[dev]' \
	  || { echo "Setting up $(VENV) failed: pip's last lines say why. It needs a package index (network, proxy) and 3 GB of disk; make goes on where it stopped."; exit 1; }
	@touch $@

demo: setup  ## From kubectl apply to a gRPC answer; JSON=file keeps the numbers
	@$(BIN)/loraland demo $(if $(JSON),--json $(JSON))

up: setup  ## Start the laptop stack and keep it running
	@$(BIN)/loraland up

down: setup  ## Stop the laptop stack
	@$(BIN)/loraland down

# Shared machines stall: what fails is run once more, and the summary names it (RERUN).
RERUN := --reruns 1 --reruns-delay 2

test: setup  ## Unit and integration tests
	@$(BIN)/python -m pytest -m "not slow" $(RERUN)

e2e: setup  ## What takes its time: outages, several processes, the whole loop on the laptop stack
	@$(BIN)/python -m pytest tests/integration -m slow --timeout 300 $(RERUN)
	@$(BIN)/python -m pytest tests/e2e --timeout 900 $(RERUN)

check: setup  ## Format, lint, types, import directions
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

gen: setup  ## Generate gRPC stubs, CRDs, the chart's schema and its golden files from their sources
	@$(BIN)/python -m loraland_core.rpc.generate
	@$(BIN)/python -m loraland_core.crds helm/loraland/files/crds
	@$(BIN)/python -m loraland_core.redis_acl helm/loraland/files/redis-acl/users.acl
	@$(BIN)/python helm/schema.py helm/loraland
	@$(BIN)/python tests/fakes/charts.py

bench: setup  ## The table of docs/performance.md; PEERS=folder runs others beside it, ARGS=… more options
	@$(BIN)/python benchmarks/serving.py --suite --engine --grpc $(if $(JSON),--json $(JSON)) \
	    $(if $(PEERS),--peers $(PEERS)) $(ARGS)

parity: setup  ## Largest logit differences from PEFT and Transformers beside their limits; JSON=file
	@PYTHONPATH=tests/fakes $(BIN)/python benchmarks/parity.py $(if $(JSON),--json $(JSON))

chaos: setup  ## Kill replicas, engines, Redis and S3 under load; SECONDS=300 SEED=7 JSON=file
	@PYTHONPATH=tests/fakes $(BIN)/python benchmarks/chaos.py --seconds $(SECONDS) --seed $(SEED) \
	    $(if $(JSON),--json $(JSON))

cache: setup  ## Time to first token by tier, and throughput beyond the slots; JSON=file, ARGS=…
	@$(BIN)/python benchmarks/cache.py $(if $(JSON),--json $(JSON)) $(ARGS)

kubectl-parity: setup  ## Compare the embedded API with a real server's recorded answers
	@$(BIN)/python tests/parity/run.py

docs-test: setup  ## Run the shell blocks of docs/install.md that need no nodes, and count the others
	@$(BIN)/python -m pytest -q -s tests/integration/test_docs_install.py

crash: setup  ## Kill the operator at every point where it waits for somebody; JSON=file keeps the counts
	@$(BIN)/python tests/crash/run.py $(if $(JSON),--json $(JSON)) $(ARGS)

results: setup  ## Base and tuned score of six tasks with public rows, with time; JSON=file, ARGS=…
	@$(BIN)/python benchmarks/quality.py $(if $(JSON),--json $(JSON)) $(ARGS)

clean:  ## Remove the virtual environment and all state
	@rm -rf $(VENV) .loraland
