# Every target makes .venv by itself; a machine with Python 3.11 or newer is enough.
#
#   make demo                 train, register, predict on real digits; about a minute
#   make test                 the contract: lint, types, layers and the tests of every feature
#   make proofs               kills, overload, fuzzing, other databases, the looks of the page
#   make all                  both in one run, which starts servers and trains versions once
#   make PYTHON=python3.12 .. another interpreter for a new .venv

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := build/demo
# One more than two cores: tests wait for servers as often as for a core.
WORKERS ?= 3
SOAK ?= 1

# The first interpreter that is new enough.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

.PHONY: help demo test proofs all lint format docs bench bench-gate bench-train bench-registry bench-serve bench-retrain clean

help:
	@echo "make demo    train on digits, register, predict an image, list versions"
	@echo "make test    lint, types, layers, docstrings, the tests of every feature"
	@echo "make proofs  kills, overload, fuzzing, other databases; SOAK=10 for ten times the rounds"
	@echo "make all     both in one run: quicker than one after the other"
	@echo "make lint    make test without the tests"
	@echo "make format  let ruff write the code as it wants to read it"
	@echo "make docs    write docs/cli.md and docs/api.md anew"
	@echo "make bench   start-up times beside an empty Typer program"
	@echo "make bench-registry   lists and queries of 100,000 versions beside MLflow's client"
	@echo "make bench-gate   how often the gate is wrong, simulated"
	@echo "make bench-train DATA=FOLDER   training beside its rivals, on real MNIST"
	@echo "make bench-serve   serving beside its rivals; DATA=FOLDER, PEERS='mlserver=/path/python ..'"
	@echo "make bench-retrain DATA=FOLDER   what a training costs those who ask meanwhile"
	@echo "make clean   remove what the targets made, .venv included"

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer; make PYTHON=/path/to/python"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: export DIR_PATHS__ROOT := $(CURDIR)/$(DEMO)
demo: $(READY)
	@rm -rf $(DEMO) && mkdir -p $(DEMO)
	$(BIN)/mindtrace train --config examples/quickstart.ini
	$(BIN)/python examples/write_digit.py $(DEMO)/digit.png
	$(BIN)/mindtrace predict $(DEMO)/digit.png --topk 3
	$(BIN)/mindtrace registry list

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/docstrings.py
	$(BIN)/python .ci/budget.py

# `network` tests need more than loopback, which a machine that builds may not have.
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist worksteal --soak $(SOAK)

test: lint
	$(PYTEST) -m "not network and not proof"

proofs: $(READY)
	$(PYTEST) -m "proof and not network"

all: lint
	$(PYTEST) -m "not network"

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY)
	$(BIN)/python docs/write_reference.py

bench: $(READY)
	$(BIN)/python benchmarks/startup.py

# DATA=FOLDER holds MNIST/raw and, if wanted, FashionMNIST/raw; else [DIR_PATHS] DATA.
bench-registry: $(READY)
	$(BIN)/python benchmarks/registry.py

bench-gate: $(READY)
	$(BIN)/python benchmarks/gate.py

bench-train: $(READY)
	$(BIN)/python benchmarks/train.py $(if $(DATA),--data $(DATA))

# Wants wrk. Rivals that live in environments of their own are named by PEERS.
bench-serve: $(READY)
	$(BIN)/python benchmarks/serve.py $(if $(DATA),--data $(DATA)) $(PEERS:%=--peer-python %)

bench-retrain: $(READY)
	$(BIN)/python benchmarks/retrain.py $(if $(DATA),--data $(DATA))

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
