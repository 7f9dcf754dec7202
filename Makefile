# Each target works on a machine that has only Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
UV      = $(VENV)/uv/bin/uv
EXTRA  ?= cpu# what `make serve` installs: cpu or gpu

.PHONY: serve test test-slow lint format bench lock openapi clean

serve: $(VENV)/.$(EXTRA)
	$(BIN)/vireid serve

test: lint
	$(BIN)/python -m pytest -m "not slow" -n logical --dist loadfile

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	PATH=$(BIN):$$PATH $(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/evaluation.py

openapi: $(VENV)/.dev
	$(BIN)/python -m server.api.openapi > docs/openapi.json

# uv lives in an environment of its own: installing the project never touches it.
$(UV):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vireid needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PYTHON) -m venv $(VENV)/uv
	$(VENV)/uv/bin/pip install --quiet uv

# cpu and gpu hold the same modules in other builds, so they replace each other; dev contains cpu.
$(VENV)/.%: requirements/%.lock pyproject.toml | $(UV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes $<
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	rm -f $(VENV)/.cpu $(VENV)/.gpu $(VENV)/.dev
	touch $@
ifneq ($(wildcard $(VENV)/.dev),)
$(VENV)/.cpu: $(VENV)/.dev
	touch $@
endif

# Exact versions with hashes; no index address is written.
LOCK = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --no-annotate pyproject.toml
lock: | $(UV)
	$(LOCK) --extra cpu --extra training --extra dev --output-file requirements/dev.lock
	$(LOCK) --extra cpu --constraint requirements/dev.lock --output-file requirements/cpu.lock
	$(LOCK) --extra gpu --output-file requirements/gpu.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
