# Two commands to begin with: make demo, make test. Everything they need is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find src -type f -not -name '*.pyc') pyproject.toml README.md

.PHONY: help install demo test lint bench clean

help:
	@echo "make demo     forget a class of real handwritten digits, judge it, open the report"
	@echo "make test     install and run the test suite"
	@echo "make install  only install, into .venv"
	@echo "make lint     ruff and mypy"
	@echo "make bench    speed, as ratios measured in one run"

install: $(VENV)/.installed

# The wheel is what gets installed, so the tests run on what users get.
$(VENV)/.installed: $(SOURCES) constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$$(ls build/wheel/*.whl)[test,lint]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall build/wheel/*.whl
	touch $@

demo: install
	$(BIN)/expunge demo --out dossier --force

test: install
	$(BIN)/python -m pytest -n 2 tests

lint: install
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/audit_cost.py

clean:
	rm -rf build dist dossier $(VENV)
