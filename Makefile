# Every target makes .venv when it is missing and installs what it needs there; nothing outside this folder changes.
# Choose the interpreter with PYTHON=..., the build of torch with TORCH_INDEX=https://download.pytorch.org/whl/cpu

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test browser lint spelling types docs peers tutorials bench

PYTHON ?= $(or $(shell for p in python3.11 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done),python3)
TORCH_INDEX ?=
ARGS ?=
RESULTS ?= bench-results
NOTEBOOKS ?=
JOBS ?= 2

VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
PY := $(BIN)/python
INSTALL := $(PY) -m pip install --quiet -c constraints.txt
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
WANTED := pyproject.toml constraints.txt

help:
	@echo 'make demo    fit, compare and forecast on real data; writes probseq-report.html'
	@echo 'make test    run the tests in two processes (ARGS="-k hmm" passes options to pytest, JOBS=8 takes more)'
	@echo 'make browser read the report in headless Chromium (screenshots in build/screenshots)'
	@echo 'make lint    check style, format and the layers of imports'
	@echo 'make spelling look every word of pages, tutorials and docstrings up in a dictionary'
	@echo 'make types   check types with mypy'
	@echo 'make docs    build the documentation into docs/_build/html and check its links'
	@echo 'make peers   run the scripts of pages whose other library needs an environment of its own, $(PEERS)'
	@echo 'make tutorials run the notebooks anew, all or NOTEBOOKS=tutorials/00_quickstart.ipynb, and keep them small'
	@echo 'make bench   measure speed and accuracy beside other libraries; writes a file for each into bench-results'
	@echo
	@echo 'PYTHON=...       the interpreter that makes .venv (now: $(PYTHON))'
	@echo 'TORCH_INDEX=...  where torch comes from; https://download.pytorch.org/whl/cpu is the small CPU build'

demo: $(VENV)/.demo
	@echo '== comparing models on the airline passengers (.venv/bin/probseq compare)'
	$(BIN)/probseq compare $(ARGS) --out probseq-report.html

test: $(VENV)/.dev
	@echo '== running the tests'
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS) tests

browser: $(VENV)/.dev
	@echo '== reading the report in a browser'
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest $(ARGS) tests/browser

lint: $(VENV)/.dev
	@echo '== checking style, format and layers'
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

spelling: $(VENV)/.dev
	@echo '== checking the spelling of texts, code and docstrings'
	$(BIN)/codespell
	$(PY) docs/check_spelling.py

types: $(VENV)/.dev
	@echo '== checking types'
	$(BIN)/mypy

docs: $(VENV)/.docs
	@echo '== building the documentation'
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/sphinx-build -W --keep-going -q -j $(JOBS) -b html docs docs/_build/html
	$(PY) docs/check_links.py docs/_build/html
	@echo 'Open docs/_build/html/index.html'

peers: $(PEERS)/.peers
	@echo '== running what pages show of libraries in $(PEERS)'
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PEERS)/bin/python -W ignore docs/coming_from/gluonts_side.py $(ARGS)

tutorials: $(VENV)/.docs
	@echo '== running the tutorials anew'
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) tutorials/refresh.py $(NOTEBOOKS)

bench: $(VENV)/.dev
	@echo '== measuring speed beside other libraries (this takes long; close other programs)'
	@for b in benchmarks/[!_]*.py 'benchmarks/hmm.py --short' 'benchmarks/hmm.py --emissions' 'benchmarks/hmm.py --memory'; do \
	  echo "== $$b"; $(PY) $$b --results $(RESULTS) $(ARGS) || exit 1; \
	done
	@echo 'The results are in $(RESULTS); RESULTS=docs/benchmarks/results puts them into the documentation'

# A venv made halfway (Debian without python3-venv leaves one behind) is removed, so that the next call starts anew.
$(PY):
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo 'probseq needs Python 3.11 or newer, but "$(PYTHON)" was not found. Install it, or say make PYTHON=/path/to/python3.'; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'probseq needs Python 3.11 or newer; $(PYTHON) is' "`$(PYTHON) --version 2>&1`."; \
	  echo 'Install a newer one, or say make PYTHON=/path/to/python3.'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo '$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: sudo apt install python3-venv'; exit 1; }
	@echo '== making $(VENV) with' "`$(PYTHON) --version`"
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo 'The virtual environment could not be made. On Debian or Ubuntu: sudo apt install python3-venv'; exit 1; }

# torch first and alone, so that the index asked for serves it and nothing that follows chooses another build.
$(VENV)/.torch: constraints.txt | $(PY)
	@echo '== installing $(TORCH) (the largest part; some minutes on a slow line)'
	$(INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	@touch $@

$(VENV)/.demo: $(VENV)/.torch $(WANTED)
	@echo '== installing probseq'
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.torch $(WANTED)
	@echo '== installing probseq and the tools of its developers'
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: $(VENV)/.torch $(WANTED)
	@echo '== installing probseq, the tools of its developers and of the documentation'
	$(INSTALL) -e '.[dev,docs]'
	@touch $@ $(VENV)/.dev $(VENV)/.demo

$(PEERS)/.peers: requirements-peers.txt constraints.txt pyproject.toml
	@$(MAKE) --no-print-directory VENV=$(PEERS) $(PEERS)/.torch
	@echo '== installing probseq and the libraries of requirements-peers.txt'
	$(PEERS)/bin/python -m pip install --quiet '$(TORCH)' -r requirements-peers.txt -e .
	@touch $@
