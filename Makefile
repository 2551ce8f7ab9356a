# Every target sets up .venv in the checkout by itself; when it is there and up to date that costs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo studio test browser mutants lint format

help:
	@echo "make demo    erase a style from the bundled model, judge it, draw it, export it (into demo/)"
	@echo "make studio  the same if it has not been done, then the page in the browser"
	@echo "make test    run every test that needs neither a GPU nor a browser"
	@echo "make browser  run the tests of the page in a browser; needs a Chromium"
	@echo "make mutants  make the science wrong line by line, and see that tests notice; takes an hour"
	@echo "make lint    ruff and pyright"
	@echo "make format  let ruff rewrite the files"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (the first time this downloads PyTorch and takes a few minutes) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,data,studio]"
	@touch $@

demo: $(READY)
	$(BIN)/studio demo --out demo

# The demo's run is put among the studio's own, so that the page has something to show when it is first opened.
studio: $(READY)
	@test -f demo/run/edit.safetensors || $(BIN)/studio demo --out demo
	$(BIN)/studio serve --show demo/run

# One thread a process: the models under test are tiny, and threads that wait for each other cost more than they add.
# A process per core, but not more than memory allows; the tests of a file stay together, and share what they load.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile -m "not gpu and not browser" $(PYTEST_ARGS)

browser: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m browser $(PYTEST_ARGS) tests/app

mutants: $(READY)
	$(BIN)/python -m tests.mutants $(MUTANTS_ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
