# Everything starts from a machine with Python 3.11 or newer and make:
#
#   make demo                       train, forget, audit and report on bundled data
#   make test ARGS="-k ssd"         run some tests
#   make demo PYTHON=python3.12     with another Python
#   make demo TORCH_INDEX=URL       look for torch in another package index as well, such as
#                                   PyTorch's own for builds without CUDA (a smaller download)
#
# .venv/.demo and .venv/.dev say what is installed, so that a second call starts at once.

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=
PYTHONS ?= python3
TORCH_INDEX ?=
PIP = .venv/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
RUN = .venv/bin/python -m
SITE = NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-federated check docs site bench dist format clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1	\2/p' Makefile

demo: .venv/.demo ## train, forget, audit and report on bundled data, under a minute
	.venv/bin/unlearnkit demo $(ARGS)

test: .venv/.dev ## run the tests; no network, no accelerator
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(RUN) pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: .venv/.dev ## run the tests that go through every bundled case; many minutes
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(RUN) pytest -q -n $(WORKERS) --dist worksteal -m exhaustive $(ARGS)

test-federated: .venv-federated/.done ## run the Flower adapter's tests, in an environment of its own
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 .venv-federated/bin/python -m pytest -q -p no:cacheprovider tests/federated/test_flower.py $(ARGS)

check: .venv/.dev ## lint, format, types, layers, generated documents, site
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	.venv/bin/lint-imports
	$(RUN) unlearnkit.docs --check
	$(SITE) --quiet

docs: .venv/.dev ## write the generated documents again
	$(RUN) unlearnkit.docs

site: .venv/.dev ## build the documentation site: open build/site/index.html
	$(SITE)

bench: .venv/.dev ## measure speed and memory as ratios
	$(RUN) benchmarks $(ARGS)

dist: ## build sdist and wheel, and try the wheel in a clean environment of each Python in PYTHONS
	rm -rf dist build/dist && "$(PYTHON)" -m venv build/dist/tool && build/dist/tool/bin/pip install --quiet build
	build/dist/tool/bin/python -m build --outdir dist .
	set -e; for python in $(PYTHONS); do \
	  at="$(CURDIR)/build/dist/$$python"; $$python -m venv "$$at"; \
	  "$$at/bin/pip" --disable-pip-version-check install --quiet -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") torch; \
	  "$$at/bin/pip" --disable-pip-version-check install --quiet -c constraints.txt "$$(ls dist/*.whl)[report]"; \
	  (cd "$$at" && bin/unlearnkit --version && bin/unlearnkit doctor >/dev/null && bin/unlearnkit methods >/dev/null && bin/unlearnkit demo); \
	done

format: .venv/.dev ## sort imports, apply safe fixes, lay out the code
	$(RUN) ruff check --fix-only
	$(RUN) ruff format

clean: ## remove what the other targets made, but no runs
	rm -rf .venv .venv-federated build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests benchmarks experiments -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.venv/.demo: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}; name another: make PYTHON=python3.11")'
	@echo "Installing into .venv; the first time takes a few minutes, most of them for torch"
	"$(PYTHON)" -m venv .venv
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") torch
	$(PIP) -e ".[report]"
	@touch $@

# Flower pins versions of typer, rich and click that constraints.txt is newer than.
.venv-federated/.done: pyproject.toml
	"$(PYTHON)" -m venv .venv-federated
	.venv-federated/bin/python -m pip --disable-pip-version-check install --quiet $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") "$(shell grep ^torch== constraints.txt)"
	.venv-federated/bin/python -m pip --disable-pip-version-check install --quiet -e ".[federated]" pytest
	@touch $@

.venv/.dev: .venv/.demo
	$(PIP) -e ".[report,dev]"
	@touch $@
