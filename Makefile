# Needs Python 3.11+, make, and the package registry that pip uses. Each target makes or updates
# what it needs by itself.

# Tried in this order; `make PYTHON=...` names another.
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11

# On these, when the machine has them, the fast tests run as well (`make test`).
OTHERS ?= 3.11 3.12 3.13

# What the other versions run: the rooms that the version of Python shows in; the hostile tests,
# the command and the documentation run on the main one.
FAST := tests/core tests/wire tests/backends tests/engine tests/contract tests/share \
        tests/router tests/measure

# Most tests wait for processes to start, end or be killed: three at a time keep two cores busy.
PYTEST_ARGS ?= -n 3
MINUTES ?= 5
PY := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test test-main test-others lint format bench soak docs figures venv clean

help:
	@echo "make demo    the main job on real input: all source files of the installed Python"
	@echo "make test    the tests, on this Python and on those of $(OTHERS) that are there"
	@echo "make lint    ruff and mypy --strict"
	@echo "make bench   against the peers, measured in one run"
	@echo "make soak    robustness, for MINUTES=$(MINUTES) each, and a death at every step of sharing"
	@echo "make docs    the examples of the documentation run, and its links lead somewhere"
	@echo "make figures measure the tables and plots of docs/threads-or-processes.md (some minutes)"
	@echo "make clean   remove what the other targets made"

# The script itself looks whether there is anything to do.
venv:
	@.ci/venv .venv test,lint $(PYTHON)

demo: venv
	@$(PY) -m lightwork demo factorials
	@$(PY) -m lightwork demo source-files

test: test-main test-others

test-main: venv
	$(PY) -m pytest -m "not soak" $(PYTEST_ARGS)

test-others: test-main
	@set -e; .ci/other-pythons $(OTHERS) > .venv/others; \
	while read -r version python; do \
	    .ci/venv ".venv-$$version" test "$$python"; \
	    folders=; for one in $(FAST); do if [ -d $$one ]; then folders="$$folders $$one"; fi; done; \
	    echo "== Python $$version:$$folders"; \
	    ".venv-$$version/bin/python" -m pytest -m "not slow and not soak" \
	        $$folders $(PYTEST_ARGS) < /dev/null; \
	done < .venv/others

lint: venv
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

format: venv
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

bench:
	@.ci/venv .venv-bench bench $(PYTHON)
	-@.venv-bench/bin/python -m pip install -q faster-fifo  # a peer, where it installs
	.venv-bench/bin/python benchmarks/compare.py
	.venv-bench/bin/python benchmarks/share.py
	.venv-bench/bin/python benchmarks/choose.py
	.venv-bench/bin/python benchmarks/probe.py
	.venv-bench/bin/python benchmarks/observe.py

soak: venv
	$(PY) benchmarks/soak.py --minutes $(MINUTES)
	$(PY) benchmarks/soak_share.py --minutes $(MINUTES)
	@# These take minutes each: a dump of a thread that runs would come, and may crash it.
	$(PY) -m pytest -m soak -o faulthandler_timeout=1500 $(PYTEST_ARGS)

docs: venv
	$(PY) -m pytest -q tests/test_docs.py

# For an idle machine; it writes into docs/.
figures: venv
	$(PY) benchmarks/guide.py --write

clean:
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
