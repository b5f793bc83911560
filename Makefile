# Farcall. `make help` lists what can be made; every target installs what it needs (apt, pip into .venv, npm).
.DEFAULT_GOAL := help
.PHONY: help setup build release demo try test bench lint format fuzz clean

PYTHON := .venv/bin/python
export CARGO_TERM_COLOR ?= auto
# Where scripts/setup-system puts a Node if the system's is too old.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Private builds of the bindings, beside the sources that Python and Node load.
STAMPS := target/setup

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMPS)/system $(STAMPS)/python $(STAMPS)/node ## install system packages, the Python venv and the Node packages

build: setup ## build everything: crates, Python extension, Node addon
	cargo build --workspace --exclude farcall-py --exclude farcall-node --exclude farcall-benches --all-targets
	scripts/build-bindings dev

release: setup ## the Python wheel (target/wheels) and the Node addon as a service should run them: laid out by a profile of calls
	scripts/build-bindings profiled

demo: build ## five programs in five languages call five vendors; see what Farcall sees (about a minute, 20 s of it running)
	@$(PYTHON) examples/demo/demo.py

try: build ## play one kind of rule: `make try RULE=budget`; without RULE, list them
	@$(PYTHON) examples/try/try.py $(RULE)

test: build ## run all tests of all languages; ends with "N passed, N failed"
	@$(PYTHON) scripts/test.py

bench: setup ## measure beside the peers; writes target/bench/results.json (a few minutes on a quiet machine)
	@scripts/bench

lint: build ## formatters, clippy, ruff, mypy, tsc, cargo deny
	scripts/lint

format: setup ## format the sources
	cargo fmt --all
	$(PYTHON) -m ruff format py examples scripts benches
	$(PYTHON) -m ruff check --fix py examples scripts benches

fuzz: $(STAMPS)/system ## try further cases of the properties, fuzz the wire parsers for FUZZ_SECONDS (default 600) each
	scripts/fuzz

clean: ## remove all that was built or installed here
	rm -rf target .venv node/node_modules benches/node/node_modules examples/node-service/node_modules node/*.node py/python/farcall/*.so

$(STAMPS)/system: scripts/setup-system
	scripts/setup-system
	@mkdir -p $(@D) && touch $@

$(STAMPS)/python: py/requirements-test.txt scripts/requirements.txt $(STAMPS)/system
	test -x $(PYTHON) || python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r py/requirements-test.txt -r scripts/requirements.txt
	@mkdir -p $(@D) && touch $@

$(STAMPS)/node: node/package-lock.json examples/node-service/package-lock.json $(STAMPS)/system
	cd node && npm ci --no-audit --no-fund --loglevel=error
	cd examples/node-service && npm ci --no-audit --no-fund --loglevel=error
	@mkdir -p $(@D) && touch $@
