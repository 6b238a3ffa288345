# make demo    set up .venv and run `fusionvl demo`
# make test    set up .venv with the development tools; lint, types, tests
# make help    all targets
#
# PYTHON=python3.12       the interpreter .venv is made with (3.11 or later)
# PYTEST_ARGS="-k data"   passed to pytest
# TEST_WORKERS=4          test processes (default: one per core, at most 8)

PYTHON ?= python3
PYTEST_ARGS ?=
TEST_WORKERS ?= auto
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
OLDEST_TRANSFORMERS := $(shell sed -nE 's/.*"transformers>=([0-9]+\.[0-9]+),.*/\1/p' pyproject.toml)
SETUP := PYTHON="$(PYTHON)" scripts/set_up.sh
REQUIREMENTS := pyproject.toml constraints.txt scripts/set_up.sh
VLLM := .venv-vllm
VLLM_REQUIREMENTS := $(REQUIREMENTS) constraints-vllm.txt scripts/set_up_vllm.sh

.PHONY: help demo test lint types tests tests-oldest tests-vllm format wheel wheel-check clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'

# A stamp is younger than the files it stands for: set-up runs again only when one of those changes.
$(VENV)/.stamp-demo: $(REQUIREMENTS)
	@$(SETUP) $(VENV) -e '.[easy-vqa]'
	@touch $@

# The development set holds the demo's, so it stands for both.
$(VENV)/.stamp-dev: $(REQUIREMENTS)
	@$(SETUP) $(VENV) -e '.[dev]'
	@touch $(VENV)/.stamp-demo $@

demo: $(VENV)/.stamp-demo ## answer questions about images with the model in this repository
	@$(BIN)/fusionvl demo

test: lint types tests ## lint, types and tests

lint: $(VENV)/.stamp-dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.stamp-dev ## mypy over src
	$(BIN)/mypy src

# One thread per test process: several torch thread pools on the same cores slow each other down many times over.
tests: $(VENV)/.stamp-dev ## pytest
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
		$(BIN)/python -m pytest -n $(TEST_WORKERS) --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

# The packages of $(VENV), seen through a path file, with the one that differs in front of them.
$(OLDEST)/.stamp: $(VENV)/.stamp-dev
	$(PYTHON) -m venv $(OLDEST)
	$(BIN)/python -c 'import site, sys; print(site.getsitepackages()[0]); print("$(CURDIR)/src")' \
		>"$$($(OLDEST)/bin/python -c 'import site; print(site.getsitepackages()[0])')/others.pth"
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "transformers==$(OLDEST_TRANSFORMERS).*"
	@touch $@

tests-oldest: $(OLDEST)/.stamp ## pytest of model, processing and engine with the oldest transformers that pyproject.toml allows
	@$(OLDEST)/bin/python -c 'import transformers; print("transformers", transformers.__version__)'
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
		$(OLDEST)/bin/python -m pytest -n $(TEST_WORKERS) --maxprocesses 8 --dist loadfile \
		tests/model tests/processing tests/engine tests/test_shipped_model.py

$(VLLM)/.stamp: $(VLLM_REQUIREMENTS)
	@PYTHON="$(PYTHON)" scripts/set_up_vllm.sh $(VLLM)
	@touch $@

tests-vllm: $(VLLM)/.stamp ## pytest of FUSION inside vLLM, on a CPU, in an environment of its own
	VLLM_REQUIRED=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false \
		$(VLLM)/bin/python -m pytest -n $(TEST_WORKERS) --maxprocesses 2 --dist loadfile tests/vllm

format: $(VENV)/.stamp-dev ## rewrite the files as `make lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.stamp-dev ## build dist/*.tar.gz, and from it dist/*.whl
	rm -rf dist
	$(BIN)/python -m build --outdir dist . >$(VENV)/build.log 2>&1 || { tail -n 40 $(VENV)/build.log; exit 1; }
	@ls -l dist

wheel-check: wheel ## install the wheel alone, outside the repository, and ask it a question
	PYTHON="$(PYTHON)" scripts/check_wheel.sh dist/fusionvl-*.whl

clean: ## remove the environments, builds and caches
	rm -rf $(VENV) $(OLDEST) $(VLLM) .venv-lmms build dist .mypy_cache .pytest_cache .ruff_cache src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
