# make train    install, then train the quickstart recipe
# make quick    install what the tests need, then run all but the slow ones: under a minute on 2 cores, for all day
# make test     run them all: what has to pass before a change is done
# make check    lint, formatting, types
# make audit    compare the exact versions of the dependencies with known vulnerabilities; it asks PyPI
# make docs     build the documentation into docs/_build
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: train quick test check audit docs clean

train: $(VENV)/.core
	$(BIN)/shortrun train quickstart

quick: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow"

test: $(VENV)/.test
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

audit: $(VENV)/.audit
	$(BIN)/python -m pip_audit --strict --no-deps --disable-pip -r constraints.txt

docs: $(VENV)/.test
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build

# One stamp for each set of dependencies; constraints.txt holds the exact versions, torch 2.13.0 among them.
$(VENV)/.core: EXTRAS :=
$(VENV)/.test: EXTRAS := [test]
$(VENV)/.dev: EXTRAS := [dev]
$(VENV)/.core $(VENV)/.test $(VENV)/.dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.$(EXTRAS)'
	touch $@

$(VENV)/.audit: $(VENV)/.core
	$(BIN)/python -m pip install -q --disable-pip-version-check pip-audit
	touch $@
