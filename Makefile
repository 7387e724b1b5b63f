# Every target sets up what it needs. Needs make and Python 3.11 or newer, nothing else.
SHELL := /bin/bash
VENV := .venv
CC := gcc
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup system demo test test-slow check fmt bench chaos native size clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## make .venv with exact versions

$(READY): pyproject.toml constraints.txt scripts/find-python
	@scripts/find-python > /dev/null
	@test -x $(BIN)/python || "$$(scripts/find-python)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[learn,serve,dev]'
	@touch $@

system:  ## install the Debian packages that tests and pictures need (root), or say what to install
	@scripts/system-packages

demo: setup  ## train, export, serve and break three models on real data; writes runs/demo/report.html
	$(BIN)/triptych demo

test: setup system check  ## the whole suite: style, types, architecture, tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup system  ## the long trainings and soaks
	$(BIN)/python -m pytest -m slow --timeout 3600

check: setup  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check src tests examples native
	$(BIN)/ruff format --check src tests examples native
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: setup  ## format and fix
	$(BIN)/ruff check --fix src tests examples native
	$(BIN)/ruff format src tests examples native

bench: setup system  ## every performance claim, measured beside its reference; its table goes into docs/performance.md
	@mkdir -p runs
	$(BIN)/triptych bench --json > runs/bench.json
	$(BIN)/python -m triptych.bench.page runs/bench.json docs/performance.md

chaos: setup system  ## every fault experiment, the long way; its table goes into docs/reliability.md
	@mkdir -p runs
	$(BIN)/triptych chaos --broker memory --broker sqlite --broker amqp --broker machines --json > runs/chaos.json; code=$$?; \
	$(BIN)/python -m triptych.serve.chaos.page runs/chaos.json docs/reliability.md && exit $$code

native: setup  ## build/native: libtriptych.so, triptych.h and the C example; needs gcc
	$(BIN)/python native/build.py build/native
	$(CC) -std=c11 -Wall -Wextra -O2 -Ibuild/native -o build/native/main examples/c/main.c -Lbuild/native -ltriptych -Wl,-rpath,'$$ORIGIN'

size: setup  ## lines per package
	@for d in src/triptych src/triptych/*/ tests; do printf '%7d  %s\n' "$$(find $$d -name '*.py' | xargs cat | wc -l)" "$$d"; done

clean:  ## remove what setup and runs made
	rm -rf $(VENV) runs build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
