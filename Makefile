# The commands that a person needs; README.md says what they print.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := .venv-uv/bin/uv

.PHONY: setup demo up test unit check check-style check-mypy check-pyright bench chaos peers lock

setup: $(VENV)/.ready

.venv-uv/bin/uv: requirements/bootstrap.txt
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.ready: $(UV) requirements/dev.txt pyproject.toml
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@# Compiled once here: a worker with models starts in half the time, and some machines never write bytecode.
	$(UV) pip sync --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	$(BIN)/python examples/demo.py

up: setup
	$(BIN)/easyremote up

bench: setup
	$(BIN)/easyremote bench rpc
	$(BIN)/easyremote bench stream
	$(BIN)/easyremote bench inference

# make chaos minutes=3 seed=7
chaos: setup
	PYTHONPATH=tests/support$${PYTHONPATH:+:$$PYTHONPATH} $(BIN)/python -m chaos $(foreach one,minutes seed without,$(if $($(one)),$(one)=$($(one))))

peers: setup .venv-peers/.ready .venv-stream-peers/.ready
	$(BIN)/python bench/peers/compare.py --python .venv-peers/bin/python
	$(BIN)/easyremote bench stream --peers .venv-stream-peers/bin/python

.venv-peers/.ready: $(UV) requirements/peers.txt
	test -x .venv-peers/bin/python || $(UV) venv --quiet --python $(PYTHON) .venv-peers
	$(UV) pip sync --compile-bytecode --python .venv-peers/bin/python --require-hashes requirements/peers.txt
	@touch $@

.venv-stream-peers/.ready: $(UV) requirements/stream-peers.txt
	test -x .venv-stream-peers/bin/python || $(UV) venv --quiet --python $(PYTHON) .venv-stream-peers
	$(UV) pip sync --compile-bytecode --python .venv-stream-peers/bin/python --require-hashes requirements/stream-peers.txt
	@touch $@

# Tests wait for most of their time, so more run at once than there are cores; `make test AT_ONCE=0` runs one by one.
AT_ONCE ?= 3
PYTEST = $(BIN)/pytest --numprocesses $(AT_ONCE) --dist worksteal
# Each of hundreds of workers would compile the package again where bytecode is not written.
test unit: export PYTHONDONTWRITEBYTECODE =

test: setup check
	@# What setup has just written, gigabytes, stalls the brokers of the tests for as long as it is on its way to the disk.
	@sync
	$(BIN)/pytest -m alone
	$(PYTEST) -m "not alone"

unit: setup
	$(PYTEST) easyremote tests/unit

# One after the other they wait for each other's last core.
check: setup
	@$(MAKE) --no-print-directory --jobs 3 --output-sync=target check-style check-mypy check-pyright

check-style:
	$(BIN)/ruff format --check easyremote tests scripts examples bench
	$(BIN)/ruff check easyremote tests scripts examples bench
	$(BIN)/lint-imports

check-mypy:
	$(BIN)/mypy

check-pyright:
	$(BIN)/basedpyright --level error

lock: $(UV)
	$(UV) pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --constraint requirements/dev.txt -o requirements/edge.txt
	$(UV) pip compile --quiet pyproject.toml --all-extras --group demo --group test --group build --group check --group train --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/dev.txt
	$(UV) pip compile --quiet pyproject.toml --extra inference --group build --constraint requirements/dev.txt --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/worker.txt
	$(UV) pip compile --quiet --group peers --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/peers.txt
	$(UV) pip compile --quiet --group stream-peers --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements/stream-peers.txt
