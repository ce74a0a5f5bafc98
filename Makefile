# Everything a newcomer types. Needs python3 (3.11 or later), pip and make; the rest goes into .venv.
PYTHON ?= python3
CORES ?= 2
# Processes of the tests, each with one file at a time, in the order of tests/conftest.py.
WORKERS ?= $(CORES)
PYTEST := python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

# The workflow's jobs and the command line find their tools in the environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install demo report test test-all test-slurm test-unit bench bench-targets bench-probing \
  bench-planning bench-search bench-evaluation bench-alignment bench-words bench-service \
  check format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	@$(PYTHON) -c 'import os, sys; sys.exit("Move the checkout: tools fail in a path with spaces or colons, as " + os.getcwd()) if set(os.getcwd()) & set(" \t:") else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

install: $(READY)  ## make .venv with the exact versions that the tests passed with

demo: $(READY)  ## run the whole workflow on the demo corpus, then show searches
	mess recordings demo
	snakemake --cores $(CORES)
	mess tour --dataset demo

report: $(READY)  ## pack all results into report.zip, Snakemake's own report; needs no network
	snakemake --report report.zip

test: $(READY)  ## run all tests but those that take minutes each
	$(PYTEST) -m "not exhaustive"

test-all: $(READY)  ## run all tests
	$(PYTEST)

test-slurm: $(READY)  ## run the workflow on a Slurm cluster of one node that the tests bring up (Debian: slurm-wlm, munge; as root)
	MESS_TEST_SLURM=1 $(PYTEST) tests/slurm

test-unit: $(READY)  ## run the fast tests only
	python -m pytest -n auto -m "unit and not slow"

bench: $(READY)  ## measure extraction against the plain loop and the machine's limit
	python -m benchmarks.extraction

bench-targets: $(READY)  ## measure how fast targets are, beside librosa
	python -m benchmarks.targets

bench-probing: $(READY)  ## measure probing against scikit-learn's loops
	python -m benchmarks.probing

bench-evaluation: $(READY)  ## judge encoders side by side on real performances in ../shared/data (SOUNDFONT=PIANO.sf2: another piano)
	python -m benchmarks.evaluation $(if $(SOUNDFONT),--soundfont $(SOUNDFONT)) \
	  descriptors mess-small mess-small-untrained descriptors+mess-small

bench-alignment: $(READY)  ## measure alignment on real performances in ../shared/data, beside librosa and, where installed, synctoolbox
	python -m benchmarks.alignment

bench-words: $(READY)  ## measure what words mean to listeners in ../shared/data, and what phrases find
	python -m benchmarks.words

bench-service: $(READY)  ## measure the service with 64 clients, beside FAISS alone
	python -m benchmarks.service

bench-planning: $(READY)  ## measure what planning costs for up to 100,000 recordings
	python -m benchmarks.planning

bench-search: $(READY)  ## measure building an index, and search against FAISS and numpy
	python -m benchmarks.search
	python -m benchmarks.index 25000 100000

check: $(READY)  ## lint, formats and types
	ruff check
	ruff format --check
	mypy
	snakefmt --check --compact-diff Snakefile workflow/rules
	snakemake --lint --config dataset=lint data=tests/workflow/lint

format: $(READY)  ## rewrite the code in the common format
	ruff check --fix
	ruff format
	snakefmt Snakefile workflow/rules

# Not what is costly to get again: audio and models of your own.
RESULTS := metadata embeddings proxy_targets probing indices published reports cache benchmarks \
  audio/demo models/openvino models/locks models/*-untrained

clean:  ## remove all results and Snakemake's state, not .venv, your audio or fetched models
	rm -rf logs .snakemake $(addprefix data/,$(RESULTS))
