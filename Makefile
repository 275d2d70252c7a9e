# Everything here works in the checkout and leaves nothing outside it (check-all installs Debian packages, as root).
PYTHON_3_11 = $(shell scripts/find-python 3.11)

.PHONY: help demo check check-all format bench clean

help:
	@echo "make demo       five relays, a looping clip and the viewer page; ARGS=\"--headless --for 20s --json\""
	@echo "make check      lint, format, types and every test that needs nothing outside the checkout"
	@echo "make check-all  then the tests that need other people's programs, a browser or root"
	@echo "make format     let ruff fix and format what it can"
	@echo "make bench      BENCH=fanout ARGS=...: one of the figures the README quotes"
	@echo "make clean      remove what these left behind"

demo:
	@scripts/install control
	@if [ -x web/build ]; then web/build; fi
	@.venv/bin/tradewind demo $(ARGS)

check:
	@$(PYTHON_3_11) scripts/stages.py check

check-all:
	@$(PYTHON_3_11) scripts/stages.py check-all

format:
	@scripts/install dev
	@.venv/bin/ruff check --fix . ; .venv/bin/ruff format .

BENCH ?= fanout
bench:
	@scripts/install dev
	@.venv/bin/python -m bench.$(BENCH) $(ARGS)

clean:
	rm -rf .venv .venv-aiomoqt .venv-node .venv-lock .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist out
	rm -rf control/pages web/node_modules tests/browser/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +
