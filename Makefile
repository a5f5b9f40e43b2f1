# make setup | demo | test | help. Everything lands in .venv and results/.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export XMODAL_REAL_DATA ?= $(abspath $(CURDIR)/../shared/data)
LOCK = uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url
PYTEST = .venv/bin/python -m pytest

MODELS ?=
ARGS ?=

.PHONY: help setup demo test test-unit test-pipeline test-nfcore test-slurm test-galaxy test-containers test-gpu test-all \
	benchmark benchmark-gpu benchmark-scale benchmark-speed bundle portal models containers lint lock clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

setup: ## Python packages into .venv, Nextflow where it is missing (10 GB, once)
	@scripts/setup

demo: setup ## Train, predict, evaluate on mouse cortex (or simulated cells); a report in results/demo
	@scripts/demo

test: test-unit test-pipeline ## All quick tests, one real Nextflow run among them

test-unit: setup ## Tests without Nextflow
	OMP_NUM_THREADS=1 $(PYTEST) -q -n 2 --dist loadfile -m "not nextflow and not nfcore and not slurm and not containers and not gpu and not galaxy"

test-pipeline: setup ## Tests that run Nextflow
	$(PYTEST) -q -n 2 --dist loadfile -m "nextflow and not containers"

test-nfcore: setup ## nf-core's tools install, lint and run our modules elsewhere; nf-test where it is found
	@scripts/setup-nfcore
	$(PYTEST) -q -rA --no-header -m nfcore

test-slurm: setup ## The pipeline over a real Slurm of two nodes on this machine
	$(PYTEST) -q -rA --no-header -m slurm

test-containers: setup ## The images as another user, read-only, in pipelines, with GPU options, in Galaxy
	@scripts/setup-container-lint
	@scripts/setup-galaxy
	@scripts/containers || [[ $$? == 77 ]]
	$(PYTEST) -q -rA --no-header -m containers

test-gpu: setup ## The suite's tests on a GPU; skipped, with the reason, where there is none
	$(PYTEST) -q -rA --no-header -m gpu

test-galaxy: setup ## A real Galaxy: every tool, workflow, form and a click-through; the portal; Galaxy over Slurm
	@scripts/setup-galaxy
	@scripts/setup-planemo
	$(PYTEST) -q --no-header -m "not galaxy" tests/test_galaxy_jobs.py tests/test_galaxy_in_step.py tests/test_report_files.py
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PYTEST) -q -rA --no-header -m galaxy --durations=30

test-all: test test-nfcore test-slurm test-galaxy test-containers ## test, and the heavy parts

benchmark: setup ## The models beside peers in their own environments (hours; what was measured is kept)
	@benchmarks/run $@

benchmark-gpu: setup ## Training and prediction on a GPU beside the CPU, where there is one
	.venv/bin/python benchmarks/gpu.py --write

benchmark-scale: setup ## Memory and time of a million cells, of 200,000 x 100,000 peaks, ... (an hour, 15 GB of disk)
	@benchmarks/run $@ $(ARGS)

benchmark-speed: setup ## Training on wide peaks: kernels, growth, beside scvi-tools (ARGS="--scvi PYTHON")
	@benchmarks/run $@ $(ARGS)

containers: setup ## Both images with podman or docker (8 GB of disk)
	@scripts/containers

bundle: setup ## Everything for a machine without internet, in build/bundle (after make containers)
	@scripts/bundle

portal: setup ## A Galaxy of your own with all of this, until Ctrl-C (ARGS="--port 8085 --host 127.0.0.1")
	@scripts/portal $(ARGS)

models: setup ## Reference models from public data, scored and described (MODELS="demo ...")
	@scripts/models $(MODELS)

lint: setup ## Style and types
	.venv/bin/ruff check src tests benchmarks scripts galaxy_tools
	.venv/bin/mypy
	MYPYPATH=scripts:galaxy_tools .venv/bin/mypy --strict -p reference_models -p portal
	@scripts/setup-container-lint
	@[[ ! -d .containerlint ]] || scripts/container-lint hadolint shellcheck zizmor

lock: ## Lock the newest fitting versions anew (needs uv)
	$(LOCK) --extra report --extra text --extra dev -o requirements.lock pyproject.toml scripts/build-needs.in
	$(LOCK) --extra report --extra text -c requirements.lock -o containers/requirements.lock pyproject.toml
	$(LOCK) --no-build -o containers/tools.lock containers/tools.in

clean: ## Results and caches; .venv stays
	rm -rf results work .nextflow .nextflow.log* .pytest_cache .mypy_cache .ruff_cache build dist
