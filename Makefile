# make, or make help, lists the targets.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
SOURCES := ryu_lw4o6 openflow_rules rest topo site_hook tests bench
# What pytest is to run, or how: make test ARGS='tests/rules -x'
ARGS ?=
# Two processes run the tests side by side (-n0: one, as a debugger wants it).
PYTEST := $(BIN)/pytest -n2

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: ## install what is needed: Debian packages, and Python packages in .venv (as root)
	@scripts/setup.sh

.PHONY: demo
demo: setup ## build the lab, send traffic through a lwAFTR, show what happens (as root)
	@$(BIN)/lw4o6-lab demo

.PHONY: test
test: setup ## run every test (as root); ARGS=... goes to pytest
	@$(PYTEST) --fail-on-skip $(ARGS) \
	  && echo "PASS: every test passed, none was skipped." \
	  || { echo "FAIL: see above."; exit 1; }

.PHONY: test-fast
test-fast: setup ## run the tests that need neither root nor a network
	@$(BIN)/pytest -m "not system" $(ARGS)

.PHONY: lint
lint: setup ## check style, types and layers
	@mkdir -p build; bad=0; \
	$(BIN)/ruff check --quiet $(SOURCES) || bad=1; \
	$(BIN)/ruff format --check --quiet --diff $(SOURCES) || bad=1; \
	$(BIN)/mypy || bad=1; \
	$(BIN)/lint-imports --no-cache >build/imports.log || { cat build/imports.log; bad=1; }; \
	[ $$bad = 0 ] && echo "PASS: style, types and layers." || { echo "FAIL: see above."; exit 1; }

.PHONY: format
format: setup ## put the sources into the project's style
	@$(BIN)/ruff check --quiet --fix-only $(SOURCES)
	@$(BIN)/ruff format --quiet $(SOURCES)

.PHONY: fuzz
fuzz: setup ## run the property tests much longer, and give each parser a million inputs
	@$(BIN)/pytest -m "not system" --hypothesis-profile=fuzz --timeout=0 $(ARGS)
	@$(BIN)/python -m tests.fuzz

.PHONY: kernel-test
kernel-test: setup ## run the kernel datapath's tests in a virtual machine (as root)
	@tests/kernel_rig/run.sh $(ARGS)

.PHONY: bench
bench: setup ## measure flows, packets and requests per second (as root)
	@$(BIN)/python -m bench $(ARGS)

.PHONY: docs
docs: setup ## write the pages that are made from the sources
	@mkdir -p build
	@$(BIN)/lw4o6 pipeline >build/pipeline.md && mv build/pipeline.md docs/pipeline.md

.PHONY: wheel
wheel: setup ## build dist/*.whl
	@$(BIN)/python -m hatchling build -t wheel

.PHONY: clean
clean: ## remove what was built, except .venv
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## remove .venv, too
	@rm -rf .venv
