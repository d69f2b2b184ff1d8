# Every target makes what it needs: on a fresh machine `make demo` or `make test` is the first command.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# What an installation depends on. The package is installed editable, so its sources are not in the list.
RECIPE := $(wildcard pyproject.toml setup.py)

# Peers of tests/interop that run on Node. Where there is no Node those tests are skipped.
NODE := $(if $(shell command -v npm 2>/dev/null),tests/interop/node/node_modules/.package-lock.json)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all sanitize soak check conformance bench bench-quick clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.package ## install the package alone and show what it does
	@$(BIN)/fullduplex demo

test: $(VENV)/.test $(VENV)/.compiled $(NODE) ## run the whole test suite, interpreted and compiled
	@echo interpreted; FULLDUPLEX_FORM=interpreted $(BIN)/python -m pytest -q
	@echo compiled; FULLDUPLEX_FORM=compiled PYTHONPATH=$(VENV)/compiled $(BIN)/python -m pytest -q -o pythonpath=tests

test-all: ## the same on every CPython from 3.11 on that is here
	@for python in $$(ls $$HOME/.pyenv/versions/3.1[1-9].*/bin/python3 2>/dev/null || command -v $(PYTHON)); do \
	    version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "== $$python"; $(MAKE) --no-print-directory test PYTHON=$$python VENV=.venv-$$version || exit 1; \
	done

# Python itself is not built so: the library is loaded before it, and what Python keeps at its end is no leak. An object
# has bounds if malloc made it, and a report is seen if nothing captures it. What bombs leave cannot be told, since freed
# memory is kept for a while.
sanitize: $(VENV)/.sanitized ## the suite in a compiled form that ends at the first mistake in C (TESTS=... for a part)
	@LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	    PYTHONMALLOC=malloc FULLDUPLEX_FORM=compiled PYTHONPATH=$(VENV)/sanitized \
	    $(BIN)/python -m pytest -q -o pythonpath=tests --capture=sys -k 'not bombs' $(TESTS)

soak: $(VENV)/.test $(VENV)/.compiled ## a million messages and 100,000 connections in each form: nothing may grow; minutes
	@for form in src $(VENV)/compiled; do PYTHONPATH=$$form:tests $(BIN)/python -m e2e.soak || exit 1; done

check: $(VENV)/.test $(VENV)/.check ## ruff (rules and format) and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

conformance: $(VENV)/.package ## Autobahn against our server and our client, every case (needs a Python 2.7)
	@$(BIN)/python conformance/autobahn.py

bench: .venv-bench/.bench ## speed and memory beside our peers, in one run of 15 to 20 minutes; writes docs/benchmarks.md
	@.venv-bench/bin/python -m benchmarks --write

bench-quick: .venv-bench/.bench ## the same in short, under 3 minutes; writes nothing
	@.venv-bench/bin/python -m benchmarks --quick

clean: ## remove everything that was made here
	rm -rf .venv .venv-bench .venv-autobahn .bench reports build dist src/*.egg-info tests/interop/node/node_modules
	rm -rf .coverage* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# One stamp for each set of requirements, so that a second run installs nothing.
%/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fullduplex needs Python 3.11 or later (PYTHON=...)")'
	$(PYTHON) -m venv $*
	@touch $@

$(VENV)/.package: $(VENV)/.python $(RECIPE)
	$(BIN)/pip install -q -e .
	@touch $@

# The other form, beside the sources.
SOURCES := $(shell find src -name '*.py' -o -name '*.pxd')
$(VENV)/.compiled: MODE = require
$(VENV)/.sanitized: MODE = sanitize
$(VENV)/.compiled $(VENV)/.sanitized: $(VENV)/.%: $(VENV)/.test $(SOURCES) setup.py
	FULLDUPLEX_COMPILE=$(MODE) $(BIN)/python setup.py -q build --build-base $(VENV)/build-$* --build-lib $(VENV)/$* > $(VENV)/$*.log 2>&1 \
	    || { tail -40 $(VENV)/$*.log; exit 1; }
	@touch $@

$(VENV)/.test $(VENV)/.check: $(VENV)/.%: $(VENV)/.package
	$(BIN)/pip install -q -e '.[$*]'
	@touch $@

$(NODE): tests/interop/node/package-lock.json
	cd $(<D) && npm ci --silent
	@touch $@

# Compiled, so not editable: it is installed again whenever a source changes. build/ may hold what the sources have lost.
.venv-bench/.bench: .venv-bench/.python $(RECIPE) $(SOURCES)
	rm -rf build
	FULLDUPLEX_COMPILE=require .venv-bench/bin/pip install -q '.[bench]'
	.venv-bench/bin/pip install -q --upgrade --target .venv-bench/speed $$(.venv-bench/bin/python -c 'import tomllib; \
	    print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["speed"])')
	@touch $@
