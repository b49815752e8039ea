# ryu-lw4o6. Run as root: the lab makes network namespaces. `make` alone lists the targets.
BIN := .venv/bin
CODE := ryu_lw4o6 openflow_rules rest topo tests bench scripts
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint format docs bench kernel-test wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing (system packages, .venv)
	@scripts/setup.sh

demo: setup ## build the lab, run traffic through the lwAFTR, show that it works
	@$(BIN)/lw4o6-lab demo

test: setup ## all tests, on real Open vSwitch and real packets
	@$(BIN)/pytest

test-fast: setup ## the tests that need no switch and no namespace
	@$(BIN)/pytest tests/core tests/store tests/topo tests/rest -q

lint: setup ## ruff, mypy, import-linter
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## format the code
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

docs: setup ## generate docs/pipeline.md and docs/openapi.json
	@$(BIN)/lw4o6 pipeline > docs/pipeline.md

bench: setup ## measure data plane, programming, live changes and restart; prints ratios
	@$(BIN)/python -m bench

kernel-test: setup ## Open vSwitch's kernel datapath under a stock kernel, in an emulator
	@tests/kernel_rig/run.sh

wheel: setup ## build the wheel into dist/
	@$(BIN)/python -m build --wheel --no-isolation

clean: ## remove what was built
	rm -rf .venv dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .rig
