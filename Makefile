# The first command on a bare Debian 12 machine (root, git, make, python3) may be any of these.

# The interpreter that the plugin ships, where the machine has it: one that was built otherwise takes up to twice as long.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11) python3)
VENV := .venv
BIN := $(VENV)/bin
export PYTHONPATH := src
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: attack bench bench-check bench-docs bench-scale names replay model model-proof fuzz fuzz-proof help demo by-hand test test-pure test-kernel test-engine test-web chaos chaos-docs chaos-proof lint docs lock lab lab-down plugin sbom audit clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/ready ## containers on two real engines talk over an overlay (KEEP=1 leaves it up to play with)
	@$(BIN)/python -m lab.demo $(if $(KEEP),--keep)

by-hand: $(VENV)/ready .lab-ready ## docs/by-hand.md step by step on two hosts, every command as written
	@$(BIN)/python -m tests.engine.by_hand

test: lint $(VENV)/ready .lab-ready ## everything: pure, kernel and engine tests
	$(BIN)/python -m pytest

test-pure: $(VENV)/ready ## no root, no network, no kernel object
	$(BIN)/python -m pytest tests/pure

test-kernel: $(VENV)/ready ## real namespaces, links and netlink; needs root
	$(BIN)/python -m pytest tests/kernel tests/attack

test-engine: $(VENV)/ready .lab-ready ## real dockerd's, Consul and registry
	$(BIN)/python -m pytest tests/engine

test-web: $(VENV)/web-ready .lab-ready ## the web page in Debian's Chromium on a running laboratory; pictures in .lab/web
	$(BIN)/python -m pytest tests/web

names: $(VENV)/ready .lab-ready ## names on three real engines of two ages: who finds whom, and what it takes
	@$(BIN)/python -m pytest tests/engine/test_names.py -q -s

ATTACKS := tests/attack tests/pure/cli/test_serve.py tests/engine/test_guard.py tests/engine/test_swarm.py \
	tests/engine/store/test_policy.py tests/engine/store/test_stolen_token.py \
	tests/engine/test_managed_seen.py::test_it_reaches_no_socket_of_the_host_but_plugins \
	tests/engine/test_managed_seen.py::test_its_token_is_found_nowhere

attack: $(VENV)/ready .lab-ready ## attacks, each with its defence off and on: a table of what became of them; needs root
	@$(BIN)/python -m pytest $(ATTACKS) -q

replay: $(VENV)/ready .lab-ready ## 100,000 calls on the embedded store: what the plugin takes, and keeps of them
	REPLAY_CALLS=100000 $(BIN)/python -m pytest tests/engine/test_replay.py -q -s

chaos: $(VENV)/ready .lab-ready ## what is lost while things break: README's table (ROWS=kill,stopped for some of it)
	$(BIN)/python -m tests.engine.chaos $(if $(ROWS),--rows $(ROWS))

chaos-docs: $(VENV)/ready ## put the table of the last `make chaos` into README
	@$(BIN)/python -m tests.engine.chaos.readme

chaos-proof: $(VENV)/ready .lab-ready ## rows of that table on code with a part taken out: they must fail
	$(BIN)/python -m tests.engine.chaos.proof

bench-scale: $(VENV)/ready .lab-ready ## what one change costs a watching host, from 100 to 100,000 endpoints; nothing else should run (SHORT=1: does it run?)
	@$(BIN)/python -m bench.scale $(if $(SHORT),--short)

bench: $(VENV)/bench-ready .lab-ready ## figures beside Docker's own overlay, in one run (FIGURES=tcp1,storm: these alone); nothing else should run
	@$(BIN)/python -m bench $(if $(FIGURES),--figures $(FIGURES))
	@$(if $(FIGURES),,$(BIN)/python -m bench.plots)

bench-check: $(VENV)/ready ## each goal of the newest results, met or not; fails on a miss
	@$(BIN)/python -m bench.check

bench-docs: $(VENV)/ready ## put the table of the newest results into README
	@$(BIN)/python -m bench.readme

model: $(VENV)/ready ## 1,000 random schedules of simulated hosts under virtual time (MODEL_SEED=… begins with that one)
	@$(BIN)/python -m tests.pure.model run --count 1000

model-proof: $(VENV)/ready ## faults planted into the code: each is found by the model; how many schedules it took, and what caught it
	@$(BIN)/python -m tests.pure.model proof

fuzz: $(VENV)/ready ## a million bent inputs for each of six decoders, or 30 CPU minutes (TARGET=dns INPUTS= MINUTES= SEED=; RECORD=1: into docs/fuzzing.md)
	@$(BIN)/python -m tests.fuzz run $(TARGET) $(if $(INPUTS),--inputs $(INPUTS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(RECORD),--record)

fuzz-proof: $(VENV)/ready ## bugs planted into the decoders: each is found by the fuzzing
	@$(BIN)/python -m tests.fuzz proof $(if $(SEED),--seed $(SEED))

lint: $(VENV)/ready ## ruff, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy -p lab -p plugin -p bench

docs: $(VENV)/ready ## write README's tables from the code
	$(BIN)/python -m tests.pure.house.tables --write

lock: $(VENV)/ready ## write the lock files anew from pyproject.toml (needs uv)
	$(PYTHON) -m plugin lock

lab: $(VENV)/ready .lab-ready ## start a laboratory (HOSTS=h1=old,h2=new,h3=none) with Consul
	$(PYTHON) -m lab up $(if $(HOSTS),--hosts $(HOSTS))

lab-down: ## end all laboratories
	$(PYTHON) -m lab down --all

plugin: $(VENV)/ready ## build/plugin, fit for `docker plugin create NAME build/plugin`
	$(PYTHON) -m plugin build --target build/plugin

sbom: $(VENV)-supply/ready plugin ## build/plugin.cdx.json: what the plugin is made of (CycloneDX), checked against its schema
	@$(VENV)-supply/bin/python -m plugin sbom

audit: $(VENV)-supply/ready ## known vulnerabilities of what the lock files pin; status 2: it could not be asked
	@$(VENV)-supply/bin/python -m plugin audit

clean: lab-down ## remove all that was built and downloaded
	rm -rf $(VENV) $(VENV)-supply .lab build

.PHONY: .lab-ready
.lab-ready:
	@$(PYTHON) -m lab fetch
	@$(PYTHON) -m lab preflight

# Debian's python3 brings no venv: the one package of its own suite that is needed here.
$(VENV)/ready: requirements-dev.lock
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv ca-certificates >/dev/null; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/web-ready: requirements-web.lock $(VENV)/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-web.lock
	@touch $@

$(VENV)-supply/ready: requirements-supply.lock $(VENV)/ready
	rm -rf $(VENV)-supply
	$(PYTHON) -m venv $(VENV)-supply
	$(VENV)-supply/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-supply.lock
	@touch $@

$(VENV)/bench-ready: requirements-bench.lock $(VENV)/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@
