# Everything a fresh machine needs: `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := .venv-peers
PEERS_INSTALLED := $(PEERS)/.installed
# Arguments for tools/bench_peers.py: a model of yours, shapes, threads.
BENCH ?=

.PHONY: demo test test-slow bench lint format clean

demo: $(INSTALLED)
	$(BIN)/fcn-deploy deploy --demo -o demo-out

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow"

bench: $(INSTALLED) $(PEERS_INSTALLED)
	mkdir -p out
	$(BIN)/python tools/bench_peers.py --peers $(PEERS)/bin/python -o out/peers.json --plot out/peers.svg $(BENCH)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(PEERS) demo-out dist

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[host,cpu,dev]'
	touch $@

$(PEERS_INSTALLED): tools/peers.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement tools/peers.txt
	touch $@
