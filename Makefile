# The two commands of the README: `make demo` and `make test`. Everything else is for people who change modelmend.
PYTHON ?= python3.11
VENV ?= .venv
# On Linux the plain index may serve CUDA builds of torch; for the CPU build set this to PyTorch's CPU index
# (see https://pytorch.org/get-started/locally/).
TORCH_INDEX_URL ?=
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
TORCH = torch==2.13.0 $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL))

.PHONY: demo test check compile zoo clean help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: | $(VENV)/bin/python
	@echo "installing torch (once, about 200 MB for the CPU build)"
	$(PIP) $(TORCH)
	@touch $@

$(VENV)/.all: pyproject.toml $(VENV)/.torch
	@echo "installing modelmend (once, a few minutes)"
	$(PIP) -c constraints.txt -e ".[all]"
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.torch
	@echo "installing modelmend with its test tools (once, a few minutes)"
	$(PIP) -c constraints.txt -e ".[dev]"
	@touch $(VENV)/.all $@

demo: $(VENV)/.all  ## install, then repair an infected model from nothing to a registered version
	$(VENV)/bin/modelmend demo

test: $(VENV)/.dev  ## install the test tools, then run the tests
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.dev  ## lint, types, import rules, drift of compiled files
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m pipelines.compile --check

compile: $(VENV)/.dev  ## compile components and pipelines to YAML
	$(VENV)/bin/python -m pipelines.compile

zoo: $(VENV)/.dev  ## train the rest of the red-team zoo (hours; resumable); needs DATA=<directory of parquet files>
	$(VENV)/bin/python -m modelmend.redteam.zoo --data $(DATA) --out .zoo

clean:  ## remove the environment and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
