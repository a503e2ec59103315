# make demo    see it work        make test    run the tests
# make lint types layers          what reviews the code
# make bench   the measurements   make torture crashes and faults, at random
#              (PEERS=all, or lmdb,sqlite,...: beside other systems; ARGS=--quick)
# make clean   remove what was made here

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE = $(wildcard pagestore tests tools)

.PHONY: demo test lint types layers bench torture clean
.DELETE_ON_ERROR:

demo: $(VENV)/cli.stamp
	@$(BIN)/pagestore demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(VENV)/dev.stamp
	$(BIN)/mypy $(CODE)

layers: $(VENV)/dev.stamp
	$(BIN)/lint-imports --no-logo --no-cache

bench: $(VENV)/$(if $(PEERS),peers,bench).stamp
	$(BIN)/python -m tools.bench $(if $(PEERS),--peers $(PEERS)) $(ARGS)

torture: $(VENV)/test.stamp
	$(BIN)/python -m tools.crash torture $(ARGS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# Any python serves to make the environment, as long as it is new enough.
$(VENV)/python.stamp:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "pagestore needs Python 3.11 or newer: '$(PYTHON)' was not found;" \
	         "try: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "pagestore needs Python 3.11 or newer: '$(PYTHON)' is $$($(PYTHON) -V 2>&1);" \
	         "try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	    echo "could not make $(VENV): the venv module of '$(PYTHON)' does not work" \
	         "(Debian, Ubuntu: apt install python3-venv)" >&2; rm -rf $(VENV); exit 1; }
	@touch $@

# One stamp for each set of extras; a second call finds it and does nothing.
$(VENV)/%.stamp: $(VENV)/python.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch $@
