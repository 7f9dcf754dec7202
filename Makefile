# Each target works on a machine that has only Python 3.11+ and make.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
UV      = $(VENV)/uv/bin/uv
SPELLED = "*.py" "*.md" "*.js" "*.html" "*.yaml" "*.yml" ":!results" ":!benchmarks/report" ":!*/vendor/*"
PEERS  ?= .venv-bench# what `make bench` compares with
EXTRA  ?= cpu# what `make serve` installs: cpu or gpu
TRAIN  ?=# further options of `make train-gpu`; a rehearsal: --set batch.per_epoch=2 --set epochs=2 --set precision=fp32

.PHONY: serve train-gpu test test-slow lint format bench lock docs results sbom clean

serve: $(VENV)/.$(EXTRA)
	$(BIN)/vireid serve

# Needs datasets/ and weights/ as the head of training/configs/baseline/osnet.yaml says.
train-gpu: $(VENV)/.dev
	$(BIN)/vireid train baseline/gpu --out runs/baseline-gpu --resume $(TRAIN)

test: lint
	$(BIN)/python -m pytest -m "not slow" -n logical --dist loadfile --max-worker-restart 0

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.language.banned_words
	$(BIN)/codespell $$(git ls-files -- $(SPELLED))

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev $(PEERS)/.made
	$(BIN)/python -m benchmarks --quick
	$(BIN)/python -m benchmarks.evaluation

docs: $(VENV)/.dev
	$(BIN)/python -m server.api.openapi > docs/openapi.json
	$(BIN)/python -m server.settings_page > docs/settings.md
	cp benchmarks/report/clients.svg docs/assets/clients.svg
	$(BIN)/python -m mkdocs build --strict --quiet

results: $(VENV)/.dev
	$(BIN)/vireid results render

# Software bills of materials, CycloneDX; the container build makes its own.
sbom: $(VENV)/.dev
	mkdir -p sbom
	for extra in cpu gpu; do $(BIN)/cyclonedx-py requirements requirements/$$extra.lock --pyproject pyproject.toml \
		--output-reproducible --output-file sbom/$$extra.cdx.json; done

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

$(PEERS)/.made: requirements/bench.lock | $(UV)
	$(UV) venv --quiet --allow-existing --python $(BIN)/python $(PEERS)
	$(UV) pip sync --quiet --python $(PEERS)/bin/python --require-hashes $<
	touch $@

# Exact versions with hashes; no index address is written. What both sides of a comparison use is the same version.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --no-annotate
LOCK = $(COMPILE) pyproject.toml
lock: | $(UV)
	$(LOCK) --extra cpu --extra mcp --extra tracing --extra training --extra dev --output-file requirements/dev.lock
	$(LOCK) --extra cpu --extra tracing --constraint requirements/dev.lock --output-file requirements/cpu.lock
	$(LOCK) --extra gpu --extra tracing --output-file requirements/gpu.lock
	echo cyclonedx-bom | $(COMPILE) - --constraint requirements/dev.lock --output-file requirements/sbom.lock
	grep -E '^(faiss-cpu|numpy|onnxruntime|openvino|pillow)==' requirements/dev.lock | tr -d '\\' > $(VENV)/same.txt
	$(COMPILE) requirements/bench.in --constraint $(VENV)/same.txt --output-file requirements/bench.lock

clean:
	rm -rf $(VENV) $(PEERS) .mypy_cache .ruff_cache .pytest_cache
